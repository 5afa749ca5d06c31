"""Packed tokens: nothing lost between text and targets, batches that depend on the step alone."""

import json
import random

import numpy as np
import pytest
import torch

from muomni.data.files import atomic_write_json, sha256_file, write_jsonl
from muomni.data.packing import pack_corpus
from muomni.data.tokens import IGNORED, TokenDataset
from muomni.errors import UserError
from muomni.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed corpus, its documents and its tokenizer."""
    folder = tmp_path_factory.mktemp("packed")
    rng = random.Random(0)
    words = "red green cat dog apple the a of and nation people 1790 é <|eot|>"
    rows = {}
    for split, number in (("train", 30), ("valid", 3), ("test", 4)):
        rows[split] = [
            {"id": f"{split}{n}", "source": "ab"[n % 2], "text": " ".join(rng.choices(words.split(), k=40))}
            for n in range(number)
        ]
        write_jsonl(folder / "text" / f"{split}.jsonl", rows[split])
    tokenizer = train_tokenizer((row["text"] for row in rows["train"]), 320, folder / "tokenizer.model")
    (folder / "tokens").mkdir()
    index = pack_corpus(folder / "text", tokenizer, folder / "tokens")
    return folder, rows, tokenizer, index


def stream_only(folder, tokens, name="train"):
    """A dataset of given ids without text behind them."""
    folder.mkdir(exist_ok=True)
    np.asarray(tokens, "<u2").tofile(folder / f"{name}.bin")
    entry = {"file": f"{name}.bin", "tokens": len(tokens), "bytes": 1, "sha256": sha256_file(folder / f"{name}.bin")}
    atomic_write_json(folder / "index.json", {"vocab_size": 65536, "eot": 2, "splits": {name: entry}})
    return TokenDataset(folder, name)


def test_stream_decodes_to_the_documents(packed):
    folder, rows, tokenizer, index = packed
    for split, documents in rows.items():
        data = TokenDataset(folder / "tokens", split)
        tokens = data.tokens.tolist()
        assert tokens[0] == tokens[-1] == tokenizer.eos == data.eot
        ends = [place for place, token in enumerate(tokens) if token == tokenizer.eos]
        decoded = [tokenizer.decode(tokens[a + 1 : b]) for a, b in zip(ends, ends[1:], strict=False)]
        # Texts that spell <|eot|> are not cut there.
        assert decoded == [row["text"] for row in documents]
        entry = index["splits"][split]
        assert entry["documents"] == len(documents) and entry["tokens"] == len(tokens)
        assert entry["bytes"] == data.bytes == sum(len(row["text"].encode()) for row in documents)
        for name in ("documents", "bytes"):
            assert sum(source[name] for source in entry["sources"].values()) == entry[name]
        assert sum(source["tokens"] for source in entry["sources"].values()) == entry["tokens"] - 1
    assert data.vocab_size == 320


@pytest.mark.parametrize(("length", "context", "batch"), [(1000, 10, 4), (1003, 10, 7), (65, 64, 3), (64, 63, 1)])
def test_an_epoch_predicts_each_token_once(tmp_path, length, context, batch):
    seed = random.randrange(10**6)
    print("seed", seed)
    data = stream_only(tmp_path / "t", np.arange(length))
    per_epoch = data.sequences(context)
    rows = []
    for step in range(-(-3 * per_epoch // batch)):
        inputs, targets = data.batch_at(step, batch, context, seed)
        assert inputs.shape == targets.shape == (batch, context) and inputs.dtype == torch.int64
        assert torch.equal(targets, (inputs + 1) % length)
        rows += list(targets)
    epochs = [torch.cat(rows[e * per_epoch : (e + 1) * per_epoch]).tolist() for e in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == per_epoch * context > length - context
    if per_epoch > 10:
        assert epochs[0] != epochs[1] != epochs[2]


def test_batches_depend_on_the_step_and_seed_alone(packed):
    folder = packed[0] / "tokens"
    one = TokenDataset(folder, "train")
    forward = [one.batch_at(step, 3, 16, seed=5) for step in range(60)]  # several epochs
    other = TokenDataset(folder, "train")
    for step in (59, 3, 31, 0):
        for mine, theirs in zip(other.batch_at(step, 3, 16, seed=5), forward[step], strict=True):
            assert torch.equal(mine, theirs)
    assert not torch.equal(one.batch_at(0, 3, 16, seed=6)[0], forward[0][0])
    # Two processes together see what one process with twice the batch sees.
    halves = torch.cat([one.batch_at(7 * 2 + rank, 3, 16, seed=5)[0] for rank in range(2)])
    assert torch.equal(halves, one.batch_at(7, 6, 16, seed=5)[0])


@pytest.mark.parametrize("stride", [None, 1, 3, 7, 8])
@pytest.mark.parametrize("length", [2, 5, 8, 9, 10, 17, 100])
def test_evaluation_sees_every_target_once(tmp_path, length, stride):
    data = stream_only(tmp_path / "t", np.arange(1000, 1000 + length))
    seen = []
    for inputs, targets in data.eval_windows(8, batch_size=3, stride=stride):
        assert inputs.shape == targets.shape and inputs.shape[1] == 8 and inputs.shape[0] <= 3
        valid = targets != IGNORED
        assert torch.equal(targets[valid], inputs[valid] + 1)
        if stride is not None:
            for row in valid[1 if seen == [] else 0 :]:
                assert int(row.nonzero()[0]) >= 8 - stride  # tokens before the first counted target
        seen += targets[valid].tolist()
    assert seen == list(range(1001, 1000 + length))


def test_too_little_data_is_an_error_and_not_an_empty_epoch(tmp_path):
    data = stream_only(tmp_path / "t", np.arange(16))
    assert data.sequences(15) == 1
    with pytest.raises(UserError, match=r"train.bin: 16 tokens are too few for a context of 16"):
        data.batch_at(0, 1, 16, 0)


def test_missing_and_damaged_files(packed, tmp_path):
    with pytest.raises(UserError, match=r"index.json: no such file; run `dvc repro tokens`"):
        TokenDataset(tmp_path, "train")
    data = stream_only(tmp_path / "t", np.arange(100))
    with pytest.raises(UserError, match="has no split 'valid'"):
        TokenDataset(tmp_path / "t", "valid")
    del data
    path = tmp_path / "t" / "train.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    with pytest.raises(UserError, match=r"train.bin: was changed \(its sha256 differs from index.json\)"):
        TokenDataset(tmp_path / "t", "train")
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(UserError, match=r"train.bin: 99 bytes, expected 200"):
        TokenDataset(tmp_path / "t", "train")
    path.unlink()
    with pytest.raises(UserError, match=r"train.bin: no such file"):
        TokenDataset(tmp_path / "t", "train")
    (tmp_path / "t" / "index.json").write_text(json.dumps({"splits": 3}))
    with pytest.raises(UserError, match="dvc repro --force tokens"):
        TokenDataset(tmp_path / "t", "train")


def test_a_corpus_without_documents_is_refused(packed, tmp_path):
    _, rows, tokenizer, _ = packed
    with pytest.raises(UserError, match=r"train.jsonl: no such file; run `dvc repro corpus-text`"):
        pack_corpus(tmp_path, tokenizer, tmp_path)
    for split in ("train", "valid", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", rows[split] if split != "test" else [])
    with pytest.raises(UserError, match=r"test.jsonl: holds no document"):
        pack_corpus(tmp_path, tokenizer, tmp_path)
    assert not (tmp_path / "index.json").exists()
