"""Some hundred odd and spoiled inputs for every reader, drawn from a seed; `benchmarks/fuzz.py` has ten thousand."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fuzz_inputs import deep_json, long_number, yamls
from fuzz_targets import Readers, targets
from fuzzing import fuzz

from muomni.data.shards import decode_member
from muomni.errors import UserError
from muomni.params import read_params

SEED = 1
A_TARGET = 24  # inputs, beside those that were thought out


def test_no_input_makes_a_traceback_a_hang_or_too_much_memory(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chosen = targets(tmp_path / "work")
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda t: fuzz(t.name, t.seconds, SEED, A_TARGET, tmp_path / "kept"), chosen))
    assert not [(t.name, fault) for t, r in zip(chosen, reports, strict=True) for fault in r.faults]
    assert sum(report.inputs for report in reports) >= 300
    assert sum(report.accepted for report in reports) >= 50  # good ones are among them


@pytest.mark.parametrize("text", [deep_json(), long_number()], ids=["deep", "long"])
def test_json_of_shards_that_python_refuses_is_damage_and_no_traceback(text: bytes) -> None:
    with pytest.raises(ValueError):
        decode_member("json", text)


@pytest.mark.parametrize("number", range(1, len(yamls())))
def test_odd_parameters_are_one_line(number: int, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(yamls()[number])
    with pytest.raises(UserError) as caught:
        read_params(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_video_whose_pictures_no_decoder_knows_is_refused(tmp_path: Path) -> None:
    from test_media import movie_bytes

    from muomni.media import load_video

    with pytest.raises(UserError, match="cannot be read"):
        load_video(movie_bytes(1, form="avi").replace(b"FMP4", b"ZZZZ"))


@pytest.mark.parametrize("member", ["../../evil", "/etc/evil"])
def test_a_shards_key_is_no_path(member: str, tmp_path: Path) -> None:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(f"{member}.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))
    with pytest.raises(UserError, match="has a bad name|is no key"):
        Readers(tmp_path / "work").tar(buffer.getvalue())
