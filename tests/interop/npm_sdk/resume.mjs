// A session goes from client to client by what they share: the driver that keeps its events.

import { InMemorySessionPersistDriver } from "sandbox-agent";
import { connect, failure, listen, prompt, tell, turn } from "./stage.mjs";

const persist = new InMemorySessionPersistDriver();
const connected = () => connect({ persist });

const first = await connected();
const begun = await first.createSession({ agent: "mock", id: "ours" });
const { id, agentSessionId } = begun;
await turn(begun, listen(begun), "/echo sunflower");
tell("crashed", await failure(prompt(begun, "/crash 3"))); // it will be replayed, and must not be obeyed again
await first.dispose();

const second = await connected();
const resumed = await second.resumeSession(id);
const ear = listen(resumed);
tell("resumed", {
  sameId: resumed.id === id,
  sameAgentSession: resumed.agentSessionId === agentSessionId,
  ...(await turn(resumed, ear, "/recite")),
});

const third = await connected();
const taken = await third.resumeSession(id);
const thirdEar = listen(taken);
tell("resumed beside", await turn(taken, thirdEar, "/stream 50"));
tell("servers", await second.listAcpServers());
await second.dispose();
tell("outlives", await turn(taken, thirdEar, "/stream 50"));

await third.destroySession(id);
const { items } = await persist.listEvents({ sessionId: id, limit: 1000 });
tell("kept", { destroyed: (await persist.getSession(id)).destroyedAt !== undefined, events: items.length });
await third.dispose();
