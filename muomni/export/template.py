"""The chat template in the language of transformers' tokenizers; `muomni.tokenizer.render_chat` gives the same ids.

Text goes through it as text, whatever is in it: where it has ``<|`` an escape character comes between the two, and
where a message has two texts one after the other, which are encoded one by one, ``<`` ESC ``>`` stands between them.
`muomni.export.hf.tokenization_muomni` undoes that.
"""

LINES = (
    "{%- if not messages -%}{{ raise_exception('messages: empty; give at least one user message') }}{%- endif -%}",
    "{%- for message in messages -%}",
    "{%- set answer = message.role == 'assistant' -%}",
    "{%- if message.role not in ('user', 'assistant') or answer == (loop.index0 % 2 == 0) -%}",
    "{{ raise_exception('user and assistant must take turns, the user first') }}",
    "{%- endif -%}",
    "{{- '<|assistant|>' if answer else '<|user|>' -}}",
    "{%- set seen = namespace(text=false, anything=false) -%}",
    "{%- set content = message.content -%}",
    "{%- set parts = [{'type': 'text', 'text': content}] if content is string else content -%}",
    "{%- for part in parts -%}",
    "{%- if part.type == 'text' -%}",
    "{%- if seen.text -%}{{- '<\x1b>' -}}{%- endif -%}",
    "{{- part.text | replace('<\x1b', '<\x1b\x1b') | replace('<|', '<\x1b|') -}}",
    "{%- set seen.text = true -%}",
    "{%- if part.text | trim -%}{%- set seen.anything = true -%}{%- endif -%}",
    "{%- elif part.type in ('image', 'audio', 'video') and not answer -%}",
    "{{- '<|' + part.type + '|>' -}}",
    "{%- if part.type == 'video' -%}",
    "{%- for frame in part.frames or part.video -%}{{- '<|image|>' -}}{%- endfor -%}",
    "{%- endif -%}",
    "{%- set seen.text = false -%}{%- set seen.anything = true -%}",
    "{%- else -%}",
    "{{ raise_exception('content cannot have a part of this type') }}",
    "{%- endif -%}",
    "{%- endfor -%}",
    "{%- if not seen.anything -%}{{ raise_exception('the content of a message is empty') }}{%- endif -%}",
    "{{- '<|end|>' -}}",
    "{%- if add_generation_prompt and loop.last -%}",
    "{%- if answer -%}{{ raise_exception('the last message must be the user\\'s') }}{%- endif -%}",
    "{{- '<|assistant|>' -}}",
    "{%- endif -%}",
    "{%- endfor -%}",
)
CHAT_TEMPLATE = "\n".join(LINES)
