"""Every file that the fuzzer starts from, through its target, without the fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import decode_reply, decode_request, seeds

from .programs import ROOT

CORPUS = ROOT / "fuzz" / "corpus"


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", sorted((CORPUS / "decode_request").iterdir()), ids=name)
def test_a_record_of_the_corpus_has_its_outcome(path: Path) -> None:
    decode_request.one_input(path.read_bytes())


@pytest.mark.parametrize("path", sorted((CORPUS / "decode_reply").iterdir()), ids=name)
def test_a_reply_of_the_corpus_is_read_or_refused(path: Path) -> None:
    decode_reply.one_input(path.read_bytes())


def test_the_corpus_is_small_and_has_all_seeds() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) < 300_000
    assert {seed for seed, _ in (*seeds.requests(), *seeds.replies())} <= {path.name for path in files}
