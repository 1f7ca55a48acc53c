"""Asking the Materials Project: the client, its key, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from potnet.config.resolvers import secret
from potnet.data.download.remote import reason_of
from potnet.data.errors import DataError

KEY = "MP_API_KEY"
KEY_LENGTH = 32
_KEYS_AT = "https://next-gen.materialsproject.org/api"
_SERVER = "https://api.materialsproject.org/"
_REACH_SECONDS = 15
_ATTEMPTS = 2
# By the words around them: ids of crystals in an address may hold the same digits.
_REFUSED = re.compile(r"status code 40[13]\b|\b40[13] Client|forbidden|unauthorized|authentication", re.I)


def search(client: Any, **query: Any) -> list[Any]:
    """One search; whatever goes wrong within the client becomes one message."""
    # The client takes ranges as tuples; a query that is kept as JSON has lists.
    query = {
        key: tuple(value) if isinstance(value, list) and isinstance(value[0], int | float) else value
        for key, value in query.items()
    }
    try:
        return list(client.materials.summary.search(**query))
    except Exception as error:  # requests, pydantic and the client's own
        raise _explained(error) from error


@contextmanager
def connected(connect: Callable[[str], Any], key: str) -> Iterator[Any]:
    """A client that is closed again; what goes wrong as it is made, when it asks the server, is explained."""
    try:
        client = connect(key)
    except DataError:
        raise
    except Exception as error:
        raise _explained(error) from error
    try:
        yield client
    finally:
        close = getattr(getattr(client, "session", None), "close", None)
        if close is not None:
            close()


def mp_rester(key: str) -> Any:
    """The client of mp-api; it takes seconds to import, and asks the server for its version.

    Raises:
        DataError: mp-api is not installed.
        ConnectionError: There is no network. The client itself would try for minutes to find that out.
    """
    if find_spec("mp_api") is None:
        raise DataError('data=mp_api needs mp-api, which is not installed: pip install "potnet[mp]"')
    import requests

    # A name server may take seconds to answer, so once more before giving up.
    address = os.environ.get("MP_API_ENDPOINT") or _SERVER
    for attempt in range(_ATTEMPTS):
        try:
            requests.head(address, timeout=_REACH_SECONDS)
            break
        except requests.exceptions.RequestException as error:
            if attempt == _ATTEMPTS - 1:
                reason = reason_of(error) or " ".join(str(error).split())[:200]
                raise ConnectionError(f"cannot reach {urlsplit(address).hostname} ({reason})") from error
    from mp_api.client import MPRester

    return MPRester(key, use_document_model=False, mute_progress_bars=True)


def checked_key(query: Mapping[str, Any]) -> str:
    """The API key, refused before any request if it cannot be one."""
    key = secret(KEY)
    if key is None:
        raise DataError(
            f"the Materials Project is asked for {shown(query)}, and nothing is cached: get a key at "
            f"{_KEYS_AT} and set {KEY}, or write it into .env. Without "
            "a key and without a network, data=embedded works"
        )
    if len(key) != KEY_LENGTH:
        raise DataError(
            f"{KEY} has {len(key)} characters; keys have {KEY_LENGTH} (those of the old API do not work any "
            f"more). Get one at {_KEYS_AT}"
        )
    return key


def _explained(error: Exception) -> DataError:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if _REFUSED.search(text):
        return DataError(
            f"the Materials Project refuses the key in {KEY} ({text}): compare it with the one on {_KEYS_AT}"
        )
    if isinstance(error, OSError) or "timed out" in text:  # requests' errors are OSErrors
        return DataError(
            f"the Materials Project cannot be reached ({text}): check network and proxy. What was fetched "
            "earlier is used without a network, and data=embedded always works"
        )
    return DataError(f"the Materials Project cannot answer ({type(error).__name__}: {text})")


def get(document: Any, field: str) -> Any:
    """A field of a document, which is a dictionary or an object."""
    return document.get(field) if isinstance(document, Mapping) else getattr(document, field, None)


def shown(query: Mapping[str, Any]) -> str:
    """A query, for messages."""
    return ", ".join(f"{key}={value}" for key, value in query.items())
