"""Shell completion, made from the parser, so that it knows every command, flag and choice: bash, zsh and fish."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

PROGRAMS = ("laconic", "laconic-codec")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return what a shell evaluates to complete our commands; where no flag is typed, file names are completed."""
    return "\n".join({"bash": bash, "zsh": zsh, "fish": fish}[shell](parser)) + "\n"


def bash(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines for bash: one function, which finds the words that may follow by command and word before."""
    commands = commands_of(parser)
    yield "_laconic() {"
    yield "    local words= current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}"
    yield '    case "$COMP_CWORD ${COMP_WORDS[1]} $before" in'
    yield f'        "1 "*) words="{" ".join(commands)}" ;;'
    for name, command in commands.items():
        for action in command._actions:
            if action.choices:
                befores = action.option_strings or [name]
                patterns = "|".join(f'*" {name} {word}"' for word in befores)
                yield f'        {patterns}) words="{" ".join(map(str, action.choices))}" ;;'
        yield f'        *" {name} "*) [[ $current == -* ]] && words="{" ".join(flags_of(command))}" ;;'
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "}"
    yield f"complete -o default -F _laconic {' '.join(PROGRAMS)}"


def zsh(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines for zsh, which understands those for bash."""
    yield "autoload -U +X bashcompinit && bashcompinit"
    yield from bash(parser)


def fish(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines for fish: one for each command and each flag, with its help."""
    helps = {action.dest: action.help or "" for action in subparsers(parser)._choices_actions}
    for program in PROGRAMS:
        for name, command in commands_of(parser).items():
            yield f"complete -c {program} -f -n __fish_use_subcommand -a {name} -d {quoted(helps[name])}"
            for action in command._actions:
                yield f"complete -c {program} -n '__fish_seen_subcommand_from {name}'{fish_flag(action)}"


def fish_flag(action: argparse.Action) -> str:
    """Return the rest of fish's line for a flag, or for a word that is one of a few."""
    parts = [f"-{'l' if flag.startswith('--') else 's'} {flag.lstrip('-')}" for flag in action.option_strings]
    if action.choices:
        parts.append(f"{'-x' if parts else '-f'} -a {quoted(' '.join(map(str, action.choices)))}")
    elif parts and action.nargs != 0:
        parts.append("-r")
    help = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    return " ".join(["", *parts, f"-d {quoted(help)}"]) if parts else " -F"


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command."""
    return dict(subparsers(parser).choices)


def subparsers(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """Return the action that holds the commands; argparse has no public way to it, so all who complete go this one."""
    return next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def flags_of(command: argparse.ArgumentParser) -> list[str]:
    """Return all flags of a command."""
    return [flag for action in command._actions for flag in action.option_strings]


def quoted(text: str) -> str:
    """Return a text in single quotes, as fish reads them."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
