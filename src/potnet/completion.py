"""Completion of `potnet` in a shell: subcommands, groups with their options, keys, files.

Examples
    eval "$(potnet completion bash)"                                  in ~/.bashrc
    source <(potnet completion zsh)                                   in ~/.zshrc, after compinit
    potnet completion fish > ~/.config/fish/completions/potnet.fish

The shell asks `potnet completion --words WORD ...` what may stand in the place of the last word.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

BASH = r"""_potnet() {
    # Bash cuts words at = and :, so the line is cut at blanks here.
    local line="${COMP_LINE:0:COMP_POINT}" words word found
    read -r -a words <<< "$line"
    [[ "$line" == *" " ]] && words+=("")
    word="${words[-1]}"
    mapfile -t found < <(potnet completion --words "${words[@]:1}" 2>/dev/null)
    COMPREPLY=("${found[@]}")
    if [[ "$word" == *=* ]]; then
        COMPREPLY=("${found[@]#"${word%%=*}="}")
        [[ ${#found[@]} == 0 ]] && mapfile -t COMPREPLY < <(compgen -f -- "${word#*=}")
    elif [[ ${#found[@]} == 0 ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
    [[ "${COMPREPLY[0]}" == *= || "${COMPREPLY[0]}" == *. ]] && compopt -o nospace
}
complete -F _potnet potnet
"""

ZSH = r"""_potnet() {
    local -a found
    found=("${(@f)$(potnet completion --words "${(@)words[2,$CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    if (( $#found )); then
        compadd -S '' -- $found
    else
        _files
    fi
}
compdef _potnet potnet
"""

FISH = r"""function __potnet_words
    set -l words (commandline -opc) (commandline -ct)
    potnet completion --words $words[2..-1] 2>/dev/null
end
complete -c potnet -a '(__potnet_words)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

_ARGUMENTS = {"data": ["prepare", "list", "show", "verify", "clear"], "completion": list(SCRIPTS)}
"""Second words of subcommands without a configuration."""

_FLAGS = ["--help", "--cfg", "--multirun", "--config-dir"]


def candidates(words: Sequence[str]) -> list[str]:
    """What may stand in the place of the last word.

    Args:
        words: Of the command line so far, without `potnet`; the last one may be empty.

    Returns:
        Whole words, or beginnings of words that end in `=`; none where a file is wanted.
    """
    from potnet.cli import COMMANDS
    from potnet.config.paths import config_dir, groups, options

    *before, word = words or [""]
    if not before:
        return [name for name in COMMANDS if name.startswith(word)]
    name = before[0]
    if name in _ARGUMENTS and not (name == "data" and before[1:2] == ["prepare"]):
        return [text for text in _ARGUMENTS[name] if len(before) == 1 and text.startswith(word)]
    name = "train" if name == "data" else name
    if not (config_dir() / f"{name}.yaml").is_file():
        return []
    if word.startswith("-"):
        return [flag for flag in _FLAGS if flag.startswith(word)]
    key, is_value, _ = word.partition("=")
    if is_value:
        known = options(key) if name == "train" and key in groups() else []
        return [text for option in known if (text := f"{key}={option}").startswith(word)]
    found = [f"{group}=" for group in groups()] if name == "train" else []
    found += [f"{path}=" for path in _keys(name, before[1:])]
    return sorted({text for text in found if text.startswith(word)})


def _keys(name: str, overrides: Sequence[str]) -> list[str]:
    """Keys with a value in the configuration that these overrides make."""
    from omegaconf import OmegaConf

    from potnet.config.composition import compose
    from potnet.config.errors import ConfigError
    from potnet.config.flat import flat

    chosen = [word for word in overrides if "=" in word and not word.startswith("-")]
    try:
        config = compose(name, chosen)
    except ConfigError:  # a line that is not finished yet
        config = compose(name)
    return [key for key in flat(OmegaConf.to_container(config)) if "_target_" not in key]


def main() -> int:
    """Run `potnet completion`."""
    from potnet.config.suggest import did_you_mean

    arguments = sys.argv[1:]
    if arguments[:1] == ["--words"]:
        for text in candidates(arguments[1:]):
            print(text)
        return 0
    if len(arguments) == 1 and arguments[0] in SCRIPTS:
        print(SCRIPTS[arguments[0]], end="")
        return 0
    if arguments and arguments[0] not in ("-h", "--help"):
        print(f"error: unknown shell {arguments[0]}{did_you_mean(arguments[0], SCRIPTS)}", file=sys.stderr)
        return 2
    assert __doc__ is not None
    print(__doc__.strip())
    return 0 if arguments else 2


if __name__ == "__main__":
    sys.exit(main())
