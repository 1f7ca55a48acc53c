"""Configuration: composing, checking, building objects, and messages for what is wrong."""

from potnet.config.arguments import pasteable
from potnet.config.command import INTERRUPTED, entry_point
from potnet.config.composition import compose, plain
from potnet.config.errors import ConfigError
from potnet.config.flat import flat
from potnet.config.instantiate import build
from potnet.config.messages import explain, message_of
from potnet.config.paths import config_dir
from potnet.config.signatures import check_arguments, locate
from potnet.config.suggest import did_you_mean
from potnet.config.trusted import read_saved_config

__all__ = [
    "INTERRUPTED",
    "ConfigError",
    "build",
    "check_arguments",
    "compose",
    "config_dir",
    "did_you_mean",
    "entry_point",
    "explain",
    "flat",
    "locate",
    "message_of",
    "pasteable",
    "plain",
    "read_saved_config",
]
