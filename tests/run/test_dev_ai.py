"""A function that calls the AI gateway as SDKs do, through the real dispatcher (E.10, H-29)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.run.serving import Dev

pytestmark = pytest.mark.slow

ASKS = """
export default {
  async fetch(request, env) {
    const { path, body } = await request.json();
    const answer = await fetch(env.AMBA_AI_GATEWAY_URL + path, {
      method: "POST",
      headers: {
        authorization: `Bearer ${env.AMBA_INTERNAL_TOKEN}`,
        "content-type": "application/json",
        accept: body.stream ? "text/event-stream" : "application/json",
        "x-amba-project-id": env.AMBA_PROJECT_ID,
        "x-amba-request-id": request.headers.get("x-amba-request-id"),
        "x-amba-user-id": request.headers.get("x-amba-user-id"),
        "x-amba-developer-id": request.headers.get("x-amba-developer-id"),
      },
      body: JSON.stringify(body),
    });
    if (!body.stream) return new Response(answer.body, answer);
    let text = "", rest = "", done = false;
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + piece).split("\\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "data: [DONE]") done = true;
        else if (line.startsWith("data: ")) text += JSON.parse(line.slice(6)).delta?.text ?? "";
      }
    }
    return Response.json({ text, done });
  },
};
"""


def test_a_function_asks(tmp_path: Path, data_home: Path) -> None:
    """Whole, as a stream to its `[DONE]`, with embeddings, and with an error it can read."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "asks.js").write_text(ASKS)
    message = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "Name three rivers"}],
    }
    with Dev(folder, "--no-watch", "--ephemeral", data_home=data_home) as server:

        def ask(path: str, body: object) -> tuple[int, dict[str, object]]:
            with server.connection() as connection:
                sent = json.dumps({"path": path, "body": body})
                connection.request("POST", "/fn/local/asks", body=sent)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

        status, said = ask("/anthropic/messages", message)
        assert (status, said["type"]) == (200, "message")
        status, said = ask("/anthropic/messages", {**message, "stream": True})
        assert said["done"] is True
        assert str(said["text"]).endswith("You said: Name three rivers")
        status, said = ask("/openai/chat/completions", message)
        assert (status, said["object"]) == (200, "chat.completion")
        embed = {"provider": "openai", "model": "text-embedding-3-small", "input": ["a", "b"]}
        status, said = ask("/embeddings", embed)
        assert (status, said["usage"]) == (200, {"input_tokens": 2})
        status, said = ask("/anthropic/messages", {**message, "max_tokens": 0})
        assert (status, said["type"]) == (400, "error")


def test_recorded_replies(tmp_path: Path, data_home: Path) -> None:
    """`[ai] fixtures` names the folder; a file is read at each call; none there is told (E.10)."""
    folder = tmp_path / "functions"
    replies = folder / "_replies"
    replies.mkdir(parents=True)
    (folder / "amba.toml").write_text('[ai]\nfixtures = "_replies"\n')
    (replies / "greet.json").write_text('{"text": "as it was recorded"}')
    prompt = {"name": "greet", "provider": "anthropic", "model": "claude-sonnet-4-5"}
    with Dev(folder, "--no-watch", "--ephemeral", data_home=data_home) as server:
        keys, project = server.ready["keys"], server.ready["project"]["id"]

        def post(path: str, body: object, **fields: str) -> tuple[int, str]:
            with server.connection() as connection:
                headers = {"content-type": "application/json", **fields}
                connection.request("POST", path, json.dumps(body), headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

        bearer = {"authorization": f"Bearer {keys['pat']}"}
        target = f"/v1/admin/projects/{project}/ai/prompts"
        made = {**prompt, "template": "Greet", "client_invokable": True}
        assert post(target, made, **bearer)[0] == 201
        invoke = "/v1/client/ai/prompts/greet/invoke"
        client = {"x-api-key": keys["client"]}
        signed_in = json.loads(post("/v1/client/auth/anonymous", {}, **client)[1])["data"]
        session = {"authorization": f"Bearer {signed_in['session_token']}"}
        status, said = post(invoke, {}, **client, **session)
        assert status == 200, said
        assert "as it was recorded" in said
    replies.rename(folder / "_other")
    with Dev(folder, "--no-watch", "--ephemeral", data_home=data_home) as server:
        assert "_replies is no folder" in server.said("[ai] fixtures")
