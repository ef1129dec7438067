"""`sola doctor` finds what is wrong, and proves that extraction is the official predictor's."""

import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import models
from flows.cli import app
from tasks import doctor
from tasks.doctor import Finding, disk


def examined(*arguments: str | Path, expected: int) -> dict[str, Finding]:
    """The findings of the command, by what they are about; it ends with this exit code."""
    done = CliRunner().invoke(app, ["doctor", "--json", *map(str, arguments)])
    assert done.exit_code == expected, done.output
    findings = [Finding(**found) for found in json.loads(done.stdout)]
    assert all("\n" not in part for finding in findings for part in finding)
    assert all(f.advice or f.found for f in findings if f.state != "ok")
    return {finding.what: finding for finding in findings}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of sam2.1_hiera_tiny in a file as Meta publishes them."""
    path = tmp_path_factory.mktemp("weights") / "sam2.1_hiera_tiny.pt"
    model, _ = models.random_tiny(image_size=1024)
    torch.save({"model": model.state_dict()}, path)
    return path


def test_all_is_well_with_the_embedded_models() -> None:
    found = examined(expected=0)
    assert {finding.state for finding in found.values()} <= {"ok", "warning"}
    assert {"versions", "device", "disk", "detector", "text encoder", "memory"} <= found.keys()
    parity = found["sam2 as official"].found
    assert "100% of grid masks and 100% of fates the same, mask IoU 1.0000" in parity
    assert "within 0 of" in parity
    assert "boxes of 4 objects" in found["detector"].found


def test_lines_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLA_DEVICE", "no-such-device")
    done = CliRunner().invoke(app, ["doctor", "--text-encoder", "demo"])
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "fault", "ok", "ok", "ok"], done.output
    assert "SOLA_DEVICE is no-such-device" in lines[1] and "-> set it to one of cpu" in lines[1]


def test_random_weights_of_an_official_architecture(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "FRAMES", 2)
    monkeypatch.setattr(doctor, "PROMPTED", (0,))
    monkeypatch.setattr(doctor, "POINTS_PER_SIDE", 2)
    found = examined("--sam2", tiny, expected=0)
    assert "39.0 million weights" in found["sam2"].found
    assert "100% of fates the same, mask IoU 1.0000" in found["sam2 as official"].found


def test_other_numbers_than_the_official_ones_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(video, image_3SS):
        return encode(video, lambda: image_3SS() + 0.5)

    encode = doctor.extracted_by_us.__globals__["EncodedVideo"]._encode
    monkeypatch.setattr("sola_model.extraction.encoding.EncodedVideo._encode", wrong)
    found = examined("--sam2", "demo", expected=1)
    assert found["sam2 as official"].state == "fault"
    assert "do not trust" in found["sam2 as official"].advice


def test_weights_that_are_missing_or_of_another_size(tiny: Path, tmp_path: Path) -> None:
    found = examined("--sam2", tmp_path / "sam2.1_hiera_large.pt", expected=1)
    assert "no SAM2 checkpoint file" in found["sam2"].found
    small = tmp_path / "sam2.1_hiera_small.pt"
    small.symlink_to(tiny)
    found = examined("--sam2", small, "--detector", tmp_path, expected=1)
    assert "do not fit the architecture" in found["sam2"].found
    assert "Keep the official file name" in found["sam2"].found
    assert "sam2 as official" not in found
    assert "cannot be loaded" in found["detector"].found


def test_a_text_encoder_of_another_width() -> None:
    found = examined("--text-encoder", "demo", "--recipe", "release", expected=1)
    assert "gives 128 channels, the selector takes 1024" in found["text encoder"].found


def test_too_little_memory(tmp_path: Path) -> None:
    large = tmp_path / "sam2.1_hiera_large.pt"
    large.touch()
    os.truncate(large, 2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))  # no disk used
    found = examined("--sam2", large, expected=1)
    assert found["memory"].state == "fault" or "sam2" not in found
    assert not {"sam2", "sam2 as official"} & found.keys()


def test_no_disk(tmp_path: Path) -> None:
    finding = disk(str(tmp_path / "not" / "there" / "yet"), least=2**62)
    assert finding.state == "fault" and f"free in {tmp_path}" in finding.found
    assert "sola plan" in finding.advice
    assert disk("s3://bucket/prefix", least=2**62).state == "ok"


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLA_DEVICE", "cuda:99")
    found = examined("--sam2", "demo", expected=1)
    assert found["device"].state == "fault" and "cuda:99" in found["device"].found
    assert found["sam2 as official"].state == "ok", "the rest was looked at on the CPU"


@pytest.mark.skipif(torch.cuda.is_available(), reason="its driver is in order")
def test_a_driver_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = examined("--text-encoder", "demo", expected=0)
    assert found["driver"].state == "warning" and "run nvidia-smi" in found["driver"].advice
    monkeypatch.setattr(torch.version, "cuda", None)  # as in a build for the CPU
    found = examined("--text-encoder", "demo", expected=0)
    assert "built without CUDA" in found["driver"].advice
