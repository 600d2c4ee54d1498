// Everything that the server adds to an agent's stream, as the package receives it: it knows none of it.

import { AcpHttpClient } from "acp-http-client";
import { baseUrl, failure, tell, token } from "./stage.mjs";

const methods = [];
let wake = () => {};
let asked;
const asking = new Promise((resolve) => (asked = resolve));
const client = new AcpHttpClient({
  baseUrl,
  token,
  transport: { path: "/v1/acp/noticed", bootstrapQuery: { agent: "mock" } },
  client: { requestPermission: () => new Promise(asked) }, // never answered
  onEnvelope: ({ id, method }, direction) => {
    if (direction === "inbound" && method && id === undefined) methods.push(method);
    wake();
  },
});
const heard = async (method) => {
  while (!methods.includes(method)) await new Promise((resolve) => (wake = resolve));
};

await client.initialize();
const { sessionId } = await client.newSession({ cwd: process.cwd(), mcpServers: [] });
const prompt = (text) => client.prompt({ sessionId, prompt: [{ type: "text", text }] });

await prompt("/garbage 4");
const waiting = failure(prompt("/permission"));
await asking;
await failure(client.extMethod("mock/unknown", {}));
const other = await client.newSession({ cwd: process.cwd(), mcpServers: [] });
await failure(client.prompt({ sessionId: other.sessionId, prompt: [{ type: "text", text: "/crash 3" }] }));
await waiting;
await heard("_sandboxagent/agent/restarted");
await prompt("/silent");
tell("heard", { methods: [...new Set(methods)].sort() });
await client.disconnect();
