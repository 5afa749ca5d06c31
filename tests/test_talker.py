"""The Talker: its cache, its conditioning on the text, and what is spoken of a text."""

import pytest
import torch
from small_models import TALKER, enlarge

from muomni.audio_encoder import CHARACTERS, normalise
from muomni.config import parse
from muomni.errors import UserError
from muomni.talker import PADDING, SPACE, Talker, TalkerConfig, spell
from muomni.tokenizer import Tokenizer
from muomni.walk import LONGEST_STAY, Speaker, TalkerDecoder, Walk, pick

WIDTH = 32
VOICE = torch.zeros(1, dtype=torch.int64)


def make(frames: int = TALKER.frames) -> Talker:
    torch.manual_seed(0)
    model = enlarge(Talker(TALKER.model_copy(update={"frames": frames}), WIDTH).eval())
    with torch.no_grad():
        for part in (*model.code_heads, *model.code_embedding, model.condition.embedding):
            part.weight.mul_(10)
        model.advance.weight.mul_(10)
        model.advance.bias.fill_(-1.5)
    return model


def text(length: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(len(CHARACTERS), (length,), generator=rng), torch.randn(length, WIDTH, generator=rng)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_cached_and_uncached_speech_is_the_same(temperature: float) -> None:
    model, (characters, states) = make(), text()
    cached = model.generate(characters, states, rng(), temperature, use_cache=True)
    whole = model.generate(characters, states, rng(), temperature, use_cache=False)
    assert len(cached[0]) > 12 and cached[0].unique().numel() > 3
    assert torch.equal(cached[0], whole[0]) and torch.equal(cached[1], whole[1])


def test_a_text_that_becomes_known_bit_by_bit_is_the_same_speech() -> None:
    model, (characters, states) = make(), text(20)
    whole, positions = model.generate(characters, states, rng())
    walk, codes = Walk(model, rng()), []
    speaker = Speaker(TalkerDecoder(model), walk)
    for known in (3, 6, 7, 15, 20):
        end = known if known == 20 else known - model.condition.reach
        codes += list(speaker.to(model.condition(characters[None, :known], states[None, :known], VOICE), end))
    assert torch.equal(torch.stack(codes), whole) and walk.positions == positions.tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_utterances_made_together_are_those_made_alone(temperature: float) -> None:
    """They begin at different times, are of different lengths, and their rows move when one ends."""
    model = make()
    decoder, texts = TalkerDecoder(model), [text(length, seed=length) for length in (6, 20, 11)]
    alone = [model.generate(*said, rng(), temperature)[0] for said in texts]
    states = [model.condition(c[None], s[None], VOICE) for c, s in texts]
    walks = [Walk(model, rng(), temperature) for _ in texts]
    kv = decoder.stack.new_cache(3, 400).kv
    rows: list[int] = []
    for step in range(400):
        if step in (0, 5, 9):
            rows.append((0, 5, 9).index(step))
        for place in reversed(range(len(rows))):
            if not walks[rows[place]].goes_on(states[rows[place]].shape[1]):
                kv[:, place] = kv[:, len(rows) - 1]
                rows[place] = rows[-1]
                rows.pop()
        if rows:
            on = torch.cat([states[row][:, walks[row].at] for row in rows])
            decoder.frames([walks[row] for row in rows], on, kv[:, : len(rows)])
    assert not rows
    for walk, codes in zip(walks, alone, strict=True):
        assert walk.codes == codes.tolist()


@torch.no_grad()
def test_cached_logits_equal_uncached() -> None:
    model, (characters, states) = make(), text()
    codes, position = model.generate(characters, states, rng(), 0.0)
    previous = torch.cat((torch.full((1, TALKER.codebooks), TALKER.codes), codes[:-1]))[None]
    stay = torch.tensor([int((position[:i] == position[i]).sum()) for i in range(len(position))])[None]
    condition = model.condition(characters[None], states[None], VOICE)
    whole = model(previous, condition, position[None], stay)
    for sizes in ([1] * len(codes), [5, len(codes) - 5]):
        cache, at, parts = model.stack.new_cache(1, len(codes)), 0, []
        for size in sizes:
            part = slice(at, at + size)
            parts.append(model(previous[:, part], condition, position[None, part], stay[:, part], cache))
            at += size
        found = torch.cat(parts, 1)
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
        for one, other in zip(
            model.code_logits(found, codes[None]), model.code_logits(whole, codes[None]), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    # What was generated greedily is the likeliest of these logits, so generation and training see the same frames.
    for q, logits in enumerate(model.code_logits(whole, codes[None])):
        assert torch.equal(logits[0].argmax(-1), codes[:, q])


def test_speech_walks_through_every_character_and_ends() -> None:
    model, (characters, states) = make(), text(20)
    codes, position = model.generate(characters, states, rng())
    assert codes.shape == (len(position), TALKER.codebooks) and codes.dtype == torch.int64
    assert int(codes.min()) >= 0 and int(codes.max()) < TALKER.codes
    steps = position.diff()
    assert int(position[0]) == 0 and int(position[-1]) == 19 and set(steps.tolist()) <= {0, 1}


def test_a_talker_that_never_goes_on_still_ends() -> None:
    model, (characters, states) = make(frames=4000), text(3)
    with torch.no_grad():
        model.advance.bias.fill_(-50)
        model.advance.weight.zero_()
    _, position = model.generate(characters, states, rng())
    assert torch.bincount(position).tolist() == [LONGEST_STAY] * 3
    short = make(frames=40)
    short.advance = model.advance
    assert len(short.generate(characters, states, rng())[0]) == 40


@pytest.mark.parametrize("what", ["text", "states"])
def test_another_text_or_other_states_are_other_speech(what: str) -> None:
    model, (characters, states) = make(), text()
    other_characters, other_states = text(seed=1)
    changed = (other_characters, states) if what == "text" else (characters, other_states)
    before, after = model.generate(characters, states, rng(), 0.0)[0], model.generate(*changed, rng(), 0.0)[0]
    assert len(before) != len(after) or (before != after).float().mean() > 0.2


def test_voices_have_names_and_each_speaks_in_its_own_way() -> None:
    model, (characters, states) = make(), text()
    with torch.no_grad():
        model.condition.voice.weight.mul_(50)
    default, first, second = (
        model.generate(characters, states, rng(), 0.0, **voice)[0] for voice in ({}, {"voice": 0}, {"voice": 1})
    )
    assert torch.equal(default, first)
    assert len(first) != len(second) or (first != second).float().mean() > 0.2
    assert [TALKER.voice(name) for name in ("", "hibari", "espeak:en+m3")] == [0, 0, 1]
    with pytest.raises(UserError, match=r"voice 'hibary': not learned.* there are hibari, espeak:en\+m3"):
        TALKER.voice("hibary")
    for voices in ([], ["a", "a"], [""]):
        with pytest.raises(UserError, match="talker"):
            parse(TalkerConfig, TALKER.model_dump() | {"voices": voices}, "talker")


@torch.no_grad()
def test_a_frame_hears_about_its_own_character() -> None:
    model, (characters, states) = make(), text()
    position, stay = torch.arange(12)[None], torch.zeros(1, 12, dtype=torch.int64)
    previous = torch.full((1, 12, TALKER.codebooks), TALKER.codes)
    before = model(previous, model.condition(characters[None], states[None], VOICE), position, stay)
    changed = characters.clone()
    changed[6] = (changed[6] + 1) % len(CHARACTERS)
    after = model(previous, model.condition(changed[None], states[None], VOICE), position, stay)
    # Two convolutions of 5 reach 4 characters to either side; frames before those cannot know.
    assert torch.equal(before[:, :2], after[:, :2])
    assert (before[:, 6] - after[:, 6]).abs().max() > 1e-3


@torch.no_grad()
def test_padding_of_characters_changes_nothing() -> None:
    model, (characters, states) = make(), text(9)
    alone = model.condition(characters[None], states[None], VOICE)
    padded = torch.full((2, 14), PADDING)
    padded[0, :9] = characters
    padded[1] = text(14, seed=3)[0]
    wide = torch.full((2, 14, WIDTH), 1e3)
    wide[0, :9] = states
    together = model.condition(padded, wide, VOICE.expand(2))
    torch.testing.assert_close(together[:1, :9], alone, atol=1e-5, rtol=1e-5)
    assert not together[0, 9:].any()


@torch.no_grad()
def test_frames_do_not_see_later_codes_and_padding_of_frames_changes_nothing() -> None:
    model, (characters, states) = make(), text()
    condition = model.condition(characters[None], states[None], VOICE)
    generator = torch.Generator().manual_seed(0)
    previous = torch.randint(TALKER.codes, (1, 12, 2), generator=generator)
    position, stay = torch.arange(12)[None], torch.zeros(1, 12, dtype=torch.int64)
    before = model(previous, condition, position, stay)
    previous[:, 8:] = (previous[:, 8:] + 1) % TALKER.codes
    after = model(previous, condition, position, stay)
    assert torch.equal(before[:, :8], after[:, :8]) and not torch.allclose(before[:, 8:], after[:, 8:], atol=1e-3)


@torch.no_grad()
def test_base_and_residual_code_are_not_exchangeable() -> None:
    model = make()
    states = torch.randn(1, 6, TALKER.d_model, generator=rng())
    codes = torch.randint(TALKER.codes, (1, 6, 2), generator=rng())
    assert (model.embed_codes(codes) - model.embed_codes(codes.flip(-1))).abs().max() > 1e-2
    base, residual = model.code_logits(states, codes)
    other = codes.clone()
    other[..., 0] = (other[..., 0] + 1) % TALKER.codes
    base_other, residual_other = model.code_logits(states, other)
    assert torch.equal(base, base_other)  # the base code is not told to itself
    assert (residual - residual_other).abs().max() > 1e-2  # the residual code knows its base code
    other[..., 0], other[..., 1] = codes[..., 0], (codes[..., 1] + 1) % TALKER.codes
    assert torch.equal(model.code_logits(states, other)[1], residual)


def test_same_seed_same_codes_whatever_the_global_state() -> None:
    model, (characters, states) = make(), text()
    torch.manual_seed(1)
    first = model.generate(characters, states, rng(), 1.0)[0]
    torch.manual_seed(2)
    assert torch.equal(model.generate(characters, states, rng(), 1.0)[0], first)
    other = model.generate(characters, states, torch.Generator().manual_seed(8), 1.0)[0]
    assert not torch.equal(other, first)


def test_pick_follows_the_probabilities() -> None:
    logits, generator = torch.tensor([0.0, 2.0, -50.0]), rng()
    drawn = torch.tensor([pick(logits[None], [(1.0, generator, (0, 3))])[0] for _ in range(2000)])
    share = torch.bincount(drawn, minlength=3) / 2000
    torch.testing.assert_close(share, logits.softmax(-1), atol=0.04, rtol=0)
    assert pick(logits.expand(3, 3), [(0.0, generator, (0, 3))] * 3) == [1, 1, 1]
    assert pick(logits.expand(3, 3), [(0.0, generator, (at, 3 - (at == 0) * 2)) for at in range(3)]) == [0, 1, 2]


def letters(characters: list[int]) -> str:
    return "".join(CHARACTERS[c] for c in characters)


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        ("Good morning.", " good morning "),
        ("It's 42!", " it's four two "),
        ("Straße, naïve", " strasse naive "),
        ("日本 hi 🎉", " hi "),
        ("one  two\nthree", " one two three "),
    ],
)
def test_spell_gives_each_character_its_token(small: tuple[object, Tokenizer], written: str, heard: str) -> None:
    tokenizer = small[1]
    ids = tokenizer.encode(written)
    decoded, spans = tokenizer.decode(ids), tokenizer.char_spans(ids)
    characters, tokens = spell(decoded, spans)
    assert letters(characters) == heard and len(characters) == len(tokens)
    assert tokens == sorted(tokens) and tokens[-1] == len(ids) - 1
    for c, token in zip(heard[1:-1], tokens[1:-1], strict=True):
        start, end = spans[token]
        spelled = normalise(decoded[start:end])
        assert c == " " or c in spelled, (c, spelled)


def test_spell_of_digits_repeats_the_token_for_every_letter() -> None:
    characters, tokens = spell("a 7b", [(0, 1), (1, 3), (3, 4)])
    assert letters(characters) == " a seven b "
    assert tokens == [0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2]


def test_spell_of_nothing_is_a_pause() -> None:
    assert spell("", []) == ([SPACE, SPACE], [0, 0])
    assert spell("...", [(0, 3)]) == ([SPACE, SPACE], [0, 0])


@pytest.mark.parametrize(("key", "value"), [("n_heads", 3), ("n_kv_heads", 3), ("codes", 1), ("character_kernel", 4)])
def test_bad_shapes_are_refused_by_name(key: str, value: int) -> None:
    with pytest.raises(UserError, match=key):
        parse(TalkerConfig, TALKER.model_dump() | {key: value}, "params.yaml: talker")
