// Every way to end a turn that the package leaves: the SDK's own, an application's own request, and acp-http-client.

import { AcpHttpClient } from "acp-http-client";
import { baseUrl, connect, failure, listen, prompt, tell, token, turn } from "./stage.mjs";

const client = await connect();
const session = await client.createSession({ agent: "mock" });
const ear = listen(session);

/** A turn that will not end; returns once the agent is at it. Its promise is wrapped, or `await` would wait for it. */
async function hang() {
  const since = ear.events.length;
  const ending = prompt(session, "/stream 1\n/hang");
  await ear.until(() => ear.numbers(since).length);
  return { ending };
}

let { ending } = await hang();
tell("by hand", await failure(session.rawSend("session/cancel")));
await client.destroySession(session.id);
tell("destroyed", { ...(await ending), stamped: session.destroyedAt !== undefined });
tell("alive", await turn(session, ear, "/echo x"));

({ ending } = await hang());
const { servers } = await client.listAcpServers();
const { status } = await fetch(`${baseUrl}/v1/acp/${servers[0].serverId}`, {
  method: "POST",
  headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
  body: JSON.stringify({ jsonrpc: "2.0", method: "session/cancel", params: { sessionId: session.agentSessionId } }),
});
tell("by an own request", { status, ...(await ending) });

const asked = new Promise((resolve) => session.onPermissionRequest(resolve));
ending = prompt(session, "/permission\n/hang"); // the SDK answers and cancels at once, in either order
const { id } = await asked;
await client.destroySession(session.id);
tell("while it asked", await ending);
tell("too late", await failure(session.respondPermission(id, "once")));
await client.dispose();

let begun;
const streaming = new Promise((resolve) => (begun = resolve));
const low = new AcpHttpClient({
  baseUrl,
  token,
  transport: { path: "/v1/acp/low", bootstrapQuery: { agent: "mock" } },
  client: { sessionUpdate: ({ update }) => begun(update.content.text) },
});
await low.initialize();
const { sessionId } = await low.newSession({ cwd: process.cwd(), mcpServers: [] });
ending = low.prompt({ sessionId, prompt: [{ type: "text", text: "/stream 1\n/hang" }] });
const heard = await streaming;
await low.cancel({ sessionId });
tell("low level", { ...(await ending), heard });
const again = await low.prompt({ sessionId, prompt: [{ type: "text", text: "/silent" }] });
tell("low level again", again);
await low.disconnect();
