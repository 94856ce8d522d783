import pytest

pytest.importorskip("gradio")

from keras_bit.serving import server

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("host, name", [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "*")])
def test_the_page_may_be_asked_for_at_the_address_that_is_told(host, name, monkeypatch):
    seen, told = [], []
    monkeypatch.setattr(server, "make_app", lambda saved, hosts: seen.extend(hosts))
    monkeypatch.setattr(server, "LOCAL_HOSTS", ("localhost",))
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: None)
    server.serve(None, host, 0, told.append)
    assert name in seen and told[0].startswith(f"http://{host}:")
