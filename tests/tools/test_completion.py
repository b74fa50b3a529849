"""Completion on TAB knows every command, flag and choice, in the shells that are on this machine."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from laconic.tools import completion
from laconic.tools.cli import build_parser, main

TYPED = {
    "laconic compl": "completion",
    "laconic compress --loss": "--lossless",
    "laconic compress --device cu": "cuda",
    "laconic compress photo.png --devi": "--device",
    "laconic eval --met": "--metrics",
    "laconic completion fi": "fish",
    "laconic-codec self": "selftest",
}
BASH = """
COMP_WORDS=(TYPED) COMPREPLY=()
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_laconic
printf '%s\\n' "${COMPREPLY[@]}"
"""


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def script(shell: str) -> str:
    return completion.script(build_parser(["completion"]), shell)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize("typed", TYPED)
def test_bash(typed: str) -> None:
    assert run("bash", "-c", script("bash") + BASH.replace("TYPED", typed)).split() == [TYPED[typed]]


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_leaves_files_to_the_shell() -> None:
    assert run("bash", "-c", script("bash") + BASH.replace("TYPED", "laconic compress phot")).strip() == ""
    assert run("bash", "-c", script("bash") + "complete -p laconic").strip() == "complete -o default -F _laconic laconic"


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_takes_it() -> None:
    start = "autoload -U +X compinit && compinit -u -D\n"
    assert run("zsh", "-f", "-c", start + script("zsh") + 'print -r -- "${_comps[laconic]}"').split()[-1] == "_laconic"


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
@pytest.mark.parametrize("typed", TYPED)
def test_fish(typed: str) -> None:
    found = run("fish", "-c", f"{script('fish')}\ncomplete -C '{typed}'").splitlines()
    assert [line.split("\t")[0] for line in found] == [TYPED[typed]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_flag_is_there(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for name, command in completion.commands_of(build_parser(["completion"])).items():
        assert name in text
        for flag in completion.flags_of(command):
            assert (flag if shell != "fish" else flag.lstrip("-")) in text


def test_help_says_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "--help"])
    assert 'eval "$(laconic completion bash)"' in " ".join(capsys.readouterr().out.split())
