"""Two sessions that have agreed, without a socket between them."""

from __future__ import annotations

import pytest

from devicehost.vfio_user import ClientSession, Negotiated, ServerSession


@pytest.fixture
def client() -> ClientSession:
    """A client that hasn't sent anything yet. See `server`."""
    return ClientSession()


@pytest.fixture
def server(client: ClientSession) -> ServerSession:
    """A server that has agreed with `client`: both are open."""
    session = ServerSession()
    [opened] = session.receive_data(client.propose().data)
    assert isinstance(opened, Negotiated)
    assert opened.answer is not None
    client.receive_data(opened.answer.data)
    return session
