"""Memory that is free, by what Linux says in files."""

import os

import pytest

from sola_model.extraction import host_memory
from sola_model.extraction.host_memory import free_memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 10,000 KiB of memory available, whose files can be changed."""
    (tmp_path / "meminfo").write_text("MemTotal: 20000 kB\nMemAvailable:   10000 kB\n")
    (tmp_path / "own").write_text("1:cpu:/\n0::/\n")
    for name, file in (("MEMINFO", "meminfo"), ("OWN_GROUPS", "own"), ("GROUPS", "groups")):
        monkeypatch.setattr(host_memory, name, tmp_path / file)
    return tmp_path


def group(folder, limit: str, used: int, cached: int, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = (host_memory.VERSION_1, host_memory.VERSION_2)[version - 1]
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


def test_the_machine_says_what_is_free(machine):
    assert free_memory() == 10_000 * 1024


def test_the_narrowest_group_around_the_process_counts(machine):
    (machine / "own").write_text("0::/pod/container\n")
    group(machine / "groups" / "pod" / "container", "max", 5_000, 0)
    assert free_memory() == 10_000 * 1024
    group(machine / "groups" / "pod", "8000", 6_000, 1_000)
    assert free_memory() == 8_000 - 6_000 + 1_000


def test_a_container_sees_its_own_group_at_the_root(machine):
    """Though the path it is told may be that of the host."""
    (machine / "own").write_text("0::/of/the/host\n")
    group(machine / "groups", "7000", 9_000, 0)
    assert free_memory() == 0


def test_groups_of_version_1(machine):
    (machine / "own").write_text("4:memory:/job\n3:cpu:/job\n0::/\n")
    group(machine / "groups" / "memory" / "job", "7000", 3_000, 500, version=1)
    assert free_memory() == 7_000 - 3_000 + 500


def test_without_linux_all_memory_counts(machine):
    (machine / "meminfo").unlink()
    (machine / "own").unlink()
    assert free_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
