"""Kneser-Ney against a hand-worked example, a slow reference from the paper, and as a distribution."""

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from muomni.evaluate.ngram import KneserNey, Unigram, bits_per_byte, discounts, perplexity


class Reference:
    """Chen and Goodman (1999) with dictionaries, straight from the definition."""

    def __init__(self, tokens, vocab_size, eot, order):
        padded = [eot] * (order - 1) + list(tokens)
        grams = [tuple(padded[at : at + order]) for at in range(len(tokens))]
        self.counts = {order: Counter(grams)}
        for k in range(order - 1, 0, -1):
            self.counts[k] = Counter(gram[1:] for gram in self.counts[k + 1])
        self.order, self.vocab_size, self.eot = order, vocab_size, eot
        self.d = {k: discounts(np.array(list(c.values()))) for k, c in self.counts.items()}
        self.after = {k: defaultdict(list) for k in self.counts}
        for k, c in self.counts.items():
            for gram, count in c.items():
                self.after[k][gram[:-1]].append(count)

    def p(self, w, h):
        k = len(h) + 1
        lower = self.p(w, h[1:]) if k > 1 else 1 / self.vocab_size
        seen = self.after[k].get(h, [])
        if not seen:
            return lower
        c, d = self.counts[k][h + (w,)], self.d[k]
        gamma = sum(d[min(count, 3)] for count in seen) / sum(seen)
        return max(c - d[min(c, 3)], 0) / sum(seen) + gamma * lower


def stream(seed, n, vocab_size):
    """A random text in which some continuations are likelier, with documents."""
    rng = random.Random(seed)
    out = [0]
    for _ in range(n - 1):
        out.append((out[-1] * 3 + rng.choice([1, 1, 1, 2, 5])) % vocab_size if rng.random() < 0.8 else 0)
    return out


def test_bigrams_worked_by_hand():
    # eot=0, a=1, b=2, V=4; text: a b a b a a 0. Bigrams with the start's eot before it:
    # 0a:1 ab:2 ba:2 aa:1 a0:1. Discounts fall back to 0.5, 1, 1.5 (no bigram occurs 3 times).
    model = KneserNey([1, 2, 1, 2, 1, 1, 0], vocab_size=4, eot=0, order=2)
    # Continuation counts: a after 0, b, a: 3; b after a: 1; eot after a: 1; total 5; fallback.
    gamma = (1.5 + 0.5 + 0.5) / 5
    unigram = {1: 1.5 / 5 + gamma / 4, 2: 0.5 / 5 + gamma / 4, 0: 0.5 / 5 + gamma / 4, 3: gamma / 4}
    assert sum(unigram.values()) == pytest.approx(1)
    after_a = (0.5 + 1.0 + 0.5) / 4  # histories of a: ab 2, aa 1, a0 1
    expected = {
        0: 0.5 / 4 + after_a * unigram[0],
        1: 0.5 / 4 + after_a * unigram[1],
        2: 1.0 / 4 + after_a * unigram[2],
        3: after_a * unigram[3],
    }
    np.testing.assert_allclose(model.distribution([1]), [expected[w] for w in range(4)], rtol=1e-12)
    # A history never seen backs off whole.
    np.testing.assert_allclose(model.distribution([3]), [unigram[w] for w in range(4)], rtol=1e-12)


def test_discounts_by_the_formula():
    counts = np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 10, 3])
    y = 100 / 180
    expected = [0, 1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.5]
    np.testing.assert_allclose(discounts(counts), expected)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equals_the_slow_reference(order):
    seed = random.randrange(10**6)
    print("seed", seed)
    vocab_size = 11
    train, held_out = stream(seed, 3000, vocab_size), stream(seed + 1, 300, vocab_size + 3)
    model = KneserNey(train, vocab_size + 3, eot=0, order=order)
    reference = Reference(train, vocab_size + 3, 0, order)
    padded = [0] * (order - 1) + held_out
    expected = [
        math.log(reference.p(padded[at + order - 1], tuple(padded[at : at + order - 1]))) for at in range(len(held_out))
    ]
    np.testing.assert_allclose(model.logprobs(held_out), expected, rtol=1e-10)


def test_distributions_sum_to_one_and_agree_with_scoring():
    seed = random.randrange(10**6)
    print("seed", seed)
    train = stream(seed, 5000, 40)
    model = KneserNey(train, vocab_size=60, eot=0)
    rng = random.Random(seed)
    contexts = [[], [0], [59], [59, 58, 57, 56], train[100:104], train[200:207], train[-3:]]
    contexts += [[rng.randrange(60) for _ in range(4)] for _ in range(20)]
    for context in contexts:
        probabilities = model.distribution(context)
        assert probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)
        token = rng.randrange(60)
        assert model.logprobs([*context, token])[-1] == pytest.approx(math.log(probabilities[token]))


def test_order_matters_and_chunks_do_not(monkeypatch):
    train, held_out = stream(1, 20000, 50), stream(2, 2000, 50)
    five, unigram = KneserNey(train, 50, 0), Unigram(train, 50)
    assert perplexity(five.logprobs(held_out)) < 0.5 * perplexity(unigram.logprobs(held_out))
    whole = five.logprobs(held_out)
    monkeypatch.setattr("muomni.evaluate.ngram.CHUNK", 7)
    np.testing.assert_array_equal(five.logprobs(held_out), whole)
    assert five.logprobs([]).shape == (0,)
    assert np.exp(unigram.log_table).sum() == pytest.approx(1)


def test_large_vocabulary_ids_do_not_collide():
    # 5-grams over 32,000 ids need 75 bits; ranks keep them apart.
    rng = np.random.default_rng(0)
    train = rng.integers(31_000, 32_000, 20_000)
    held_out = np.concatenate([train[:500], rng.integers(0, 32_000, 500)])
    reference = Reference(train.tolist(), 32_000, 2, 5)
    padded = [2] * 4 + held_out.tolist()
    expected = [math.log(reference.p(padded[at + 4], tuple(padded[at : at + 4]))) for at in range(1000)]
    np.testing.assert_allclose(KneserNey(train, 32_000, 2).logprobs(held_out), expected, rtol=1e-9)


def test_units():
    logprobs = np.log(np.array([0.5, 0.25, 0.125, 0.5]))
    assert perplexity(logprobs) == pytest.approx(2 ** (7 / 4))
    assert bits_per_byte(logprobs, 14) == pytest.approx(0.5)


@pytest.mark.parametrize("tokens", [[], [5], [-1]])
def test_impossible_training_streams_are_refused(tokens):
    with pytest.raises(ValueError):
        KneserNey(tokens, vocab_size=5, eot=0)
