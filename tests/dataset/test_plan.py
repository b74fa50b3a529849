"""The plan: every file in one place, whatever the order; names that webdataset reads back as they were meant."""

from __future__ import annotations

import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import BadInput, registry
from laconic.dataset.listing import File, list_files
from laconic.dataset.plan import Coding, Plan, coding_of, make_plan
from laconic.dataset.runner import rank_of

LOSSLESS = Coding({"lossless": True}, {}, {})
BASES = st.text("ab.%", min_size=1, max_size=4).filter(lambda text: not text.startswith("."))
NAMES = st.builds(
    lambda folder, base, suffix: folder + base + suffix,
    st.sampled_from(["", "c/", "c.d/"]),
    BASES,
    st.sampled_from([".png", ".jpg", ".wav", ".json", ".txt", ".lac", ""]),
).filter(lambda name: not name.endswith("/") and name.rsplit("/")[-1].strip("."))
FILES = st.dictionaries(NAMES, st.integers(0, 50), min_size=1, max_size=12)


def webdataset_key(name: str) -> tuple[str, str]:
    """The rule of webdataset 1.0.2 (tariterators.base_plus_ext)."""
    match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)
    assert match, name
    return match[1], match[2]


def files_of(sizes: dict[str, int]) -> list[File]:
    return [File(name, f"/{name}", n) for name, n in sorted(sizes.items())]


def planned(names: list[str], coding: Coding = LOSSLESS, **options: int) -> Plan:
    return make_plan(files_of(dict.fromkeys(names, 1)), coding, **options)


def members(plan: Plan) -> dict[str, str]:
    """What each file becomes; a file that is carried along twice has the last of its names."""
    return {e.file.name: e.member for shard in plan.shards for s in shard for e in (*s.media, *s.sides)}


@settings(deadline=None)  # the first call imports the media
@given(FILES, st.integers(1, 5), st.integers(1, 100))
def test_every_file_has_its_place(sizes: dict[str, int], shard_count: int, shard_size: int) -> None:
    coded = sorted(name for name in sizes if name.endswith((".png", ".jpg", ".wav")))
    if not coded:
        with pytest.raises(BadInput, match="nothing to code"):
            make_plan(files_of(sizes), LOSSLESS)
        return
    plan = make_plan(files_of(sizes), LOSSLESS, shard_count, shard_size)
    assert [e.file.name for shard in plan.shards for s in shard for e in s.media] == coded  # sorted, each once
    sides = {e.file.name for shard in plan.shards for s in shard for e in s.sides}
    assert len(coded) + len(sides) + sum(plan.head["source"]["skipped"].values()) == len(sizes)
    for shard in plan.shards:
        assert sum(len(s.media) for s in shard) <= shard_count
        assert sum(s.n_bytes for s in shard) <= shard_size or len(shard) == 1
    names = [e.member for shard in plan.shards for s in shard for e in (*s.media, *s.sides)]
    assert len(set(names)) == len(names)
    for sample in (s for shard in plan.shards for s in shard):
        assert {webdataset_key(e.member)[0] for e in (*sample.media, *sample.sides)} == {sample.key}
    assert len({s.key for shard in plan.shards for s in shard}) == len(coded)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/x.png", "a/x.json", "a/x.cls"], {"a/x.png": "a/x.lac", "a/x.json": "a/x.json", "a/x.cls": "a/x.cls"}),
        (["v1.2.png", "v1.2.json"], {"v1.2.png": "v1%2E2.lac", "v1.2.json": "v1%2E2.json"}),
        (["x.png", "x.jpg", "y.png"], {"x.png": "x%2Epng.lac", "x.jpg": "x%2Ejpg.lac", "y.png": "y.lac"}),
        (["x.png", "x.jpg", "x.png.jpg"], {"x.png": "x%2Epng.lac", "x.jpg": "x%2Ejpg.lac", "x.png.jpg": "x%2Epng%2Ejpg.lac"}),
        (["a%2Eb.png", "a.b.png"], {"a%2Eb.png": "a%252Eb.lac", "a.b.png": "a%2Eb.lac"}),
        (["x.png", "x.png.xmp", "x.seg.npy"], {"x.png": "x.lac", "x.png.xmp": "x.png.xmp", "x.seg.npy": "x.seg.npy"}),
        (["x.png", "x.y.png", "x.y.json"], {"x.png": "x.lac", "x.y.png": "x%2Ey.lac", "x.y.json": "x%2Ey.json"}),
        (["x.PNG", "d.e/x.wav"], {"x.PNG": "x.lac", "d.e/x.wav": "d.e/x.lac"}),
    ],
)
def test_names_in_shards(names: list[str], expected: dict[str, str]) -> None:
    assert members(planned(names)) == expected


def test_a_side_file_of_two_pictures_goes_with_both() -> None:
    (shard,) = planned(["x.png", "x.jpg", "x.json"]).shards
    assert [[e.member for e in s.sides] for s in shard] == [["x%2Ejpg.json"], ["x%2Epng.json"]]


def test_what_is_left_out_is_counted() -> None:
    plan = planned(["x.png", "x.lac", "readme.md", ".hidden.png", ".d/y.png", "noise", "z.wav"], coding_of({"bpp": 1.0}))
    assert members(plan) == {"x.png": "x.lac"}
    assert plan.head["source"]["skipped"] == {".lac": 1, ".md": 1, ".wav": 1, "hidden": 2, "without a suffix": 1}


def test_a_sound_beside_a_picture_is_carried_where_only_pictures_are_coded() -> None:
    assert members(planned(["x.png", "x.wav"], coding_of({"bpp": 1.0}))) == {"x.png": "x.lac", "x.wav": "x.wav"}


def in_tar(name: str, *members: str) -> list[File]:
    return [File(f"{name}/{member}", f"/{name}", 1, offset=512, tar=name) for member in sorted(members)]


def test_samples_of_tars_stay_as_they_are() -> None:
    files = in_tar("a.tar", "7.jpg", "7.seg.png", "7.json", "d/8.png", "d/8.wav", "9.cls", ".x.png")
    plan = make_plan(files, LOSSLESS)
    assert members(plan) == {
        "a.tar/7.jpg": "7.lac",
        "a.tar/7.seg.png": "7.seg.lac",
        "a.tar/7.json": "7.json",
        "a.tar/d/8.png": "d/8.png.lac",
        "a.tar/d/8.wav": "d/8.wav.lac",
    }
    assert [len(s.media) for s in plan.shards[0]] == [2, 2]
    assert plan.head["source"]["skipped"] == {".cls": 1, ".png": 1}


def test_keys_that_are_in_two_tars_get_the_path_of_their_tar() -> None:
    files = in_tar("t/a.tar", "1.png", "2.png") + in_tar("t/b.tar", "1.png")
    assert list(members(make_plan(files, LOSSLESS)).values()) == ["t/a/1.lac", "t/a/2.lac", "t/b/1.lac"]


def test_two_files_of_one_key_are_an_error_before_anything_is_written() -> None:
    with pytest.raises(BadInput, match="key x: found 'a.tar/x.png and x.png'"):
        make_plan(sorted([*in_tar("a.tar", "x.png"), File("x.png", "/x.png", 1)], key=lambda f: f.name), LOSSLESS)


@pytest.mark.parametrize(
    "other",
    [
        lambda task: replace(task, samples=planned(["y.png"]).shards[0]),
        lambda task: replace(task, samples=make_plan(files_of({"x.png": 2}), LOSSLESS).shards[0]),
        lambda task: replace(task, coding=replace(LOSSLESS, compress={"quality": 3})),
        lambda task: replace(task, coding=replace(LOSSLESS, codec={"precision": "bf16"})),
        lambda task: replace(task, coding=replace(LOSSLESS, models={"photo": "ab"})),
        lambda task: replace(task, coding=replace(LOSSLESS, laconic="9")),
    ],
)
def test_the_key_of_a_shard_knows_names_sizes_options_models_and_version(other) -> None:  # type: ignore[no-untyped-def]
    task = planned(["x.png"]).task(0, "out")
    assert task.key == planned(["x.png"]).task(0, "elsewhere", verify=True).key
    assert task.key != other(task).key


def test_options_are_those_of_compress_and_codec() -> None:
    coding = coding_of({"quality": 40, "effort": None, "fallback": True, "strip": False, "device": "cpu"})
    assert (coding.compress, coding.codec) == ({"quality": 40}, {"precision": "float32"})
    assert coding.models == {name: registry.find(name).digest for name in (registry.DEFAULT_PHOTO, registry.DEFAULT_SOUND)}
    assert coding_of({"fallback": False, "max_error": 0}).compress == {"fallback": False, "max_error": 0}
    for wrong in ({"quality": 101}, {"quality": 1, "bpp": 1}, {"effort": 0}, {"bitrate": 64, "medium": "photo"}):
        with pytest.raises(BadInput):
            coding_of(wrong)
    for wrong in ({"qualty": 1}, {"threads": 2}, {"notes": []}):
        with pytest.raises(TypeError):
            coding_of(wrong)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("in/b.png", "in/a/x.png", "in/a/x.json", "in/.git/y.png", "in/out/000000.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def names(sources: list[str], dest: str = "elsewhere") -> list[str]:
    return [file.name for file in list_files(sources, dest)]


def test_a_folder_is_listed_without_the_destination_in_it(tree: Path) -> None:
    expected = [".git/y.png", "a/x.json", "a/x.png", "b.png"]
    assert names([f"{tree}/in"], f"{tree}/in/out") == expected
    pytest.importorskip("fsspec", reason="laconic-codec[cloud] is not installed")
    assert names([f"file://{tree}/in"], f"file://{tree}/in/out") == expected
    with pytest.raises(BadInput, match="destination"):
        names([f"{tree}/in"], f"{tree}/in/")


def test_globs_are_named_from_their_fixed_part_on(tree: Path) -> None:
    assert names([f"{tree}/in/*/*.png"]) == ["a/x.png"]
    assert names([f"{tree}/in/**/*.png"]) == ["a/x.png", "b.png"]
    assert names([f"{tree}/in/*.png", f"{tree}/in/a/*.png"], "s3://bucket/out") == ["b.png", "x.png"]
    (tree / "in/[1]").mkdir()
    (tree / "in/[1]/z.png").touch()
    assert names([f"{tree}/in/[1]"]) == ["z.png"]


def test_several_sources_keep_the_names_of_their_folders(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names([f"{tree}/in/a", f"{tree}/in/b.png"]) == ["a/x.json", "a/x.png", "b.png"]
    monkeypatch.chdir(tree / "in/a")
    assert names([".", "../b.png"]) == ["a/x.json", "a/x.png", "b.png"]
    assert names(["."]) == ["x.json", "x.png"]


def test_a_list_names_its_files_and_any_suffix_is_tried(tree: Path) -> None:
    photo, other = f"{tree}/in/b.png", f"{tree}/in/a/strange.ext"
    (tree / "list.txt").write_text(f"# mine\n{photo}\n\n{other}\nhttps://host/.cache/c.png?size=3\n")
    files = list_files([f"{tree}/list.txt"], "out")
    assert [file.name for file in files] == sorted([photo, other, "https://host/.cache/c.png?size=3"])
    found = members(make_plan(files, LOSSLESS))
    assert found[photo] == f"{str(tree)[1:]}/in/b.lac"
    assert found[other] == f"{str(tree)[1:]}/in/a/strange.lac"
    assert found["https://host/.cache/c.png?size=3"] == "https/host/.cache/c.lac"


def test_a_source_that_is_not_there_is_an_error(tree: Path) -> None:
    for missing in (f"{tree}/no", f"{tree}/no.txt", f"{tree}/no.tar"):
        with pytest.raises(BadInput, match="source"):
            names([missing])


def test_members_of_a_tar_are_found_and_what_follows_damage_is_a_problem(tree: Path) -> None:
    path = tree / "t.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(tree / "in" / "b.png", "b.png")
        tar.add(tree / "in" / "a", "a")
    whole = list_files([str(path)], "out")
    assert [file.name for file in whole] == ["t.tar/a/x.json", "t.tar/a/x.png", "t.tar/b.png"]
    data = path.read_bytes()
    for file in whole:
        assert file.offset is not None
        assert data[file.offset : file.offset + file.n_bytes] == f"in/{file.name[6:]}".encode()
    header = tarfile.TarInfo("b.png")
    header.size = 8
    path.write_bytes(header.tobuf() + b"in/b.png".ljust(512, b"\0") + b"?" * 512)
    (damaged, good) = list_files([str(path)], "out")
    assert (good.name, good.problem) == ("t.tar/b.png", "")
    assert damaged.name == "t.tar" and "ReadError" in damaged.problem


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, (3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "3"}, (2, 3)),
    ],
)
def test_ranks_of_the_environment(environ: dict[str, str], rank: tuple[int, int]) -> None:
    assert rank_of(environ) == rank


def test_a_rank_that_is_no_number_is_an_error() -> None:
    with pytest.raises(BadInput, match="WORLD_SIZE"):
        rank_of({"RANK": "0", "WORLD_SIZE": "all"})
