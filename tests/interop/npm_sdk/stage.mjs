// What every scenario needs: its lines to and from the test, and ears for a session.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { SandboxAgent } from "sandbox-agent";

export const baseUrl = process.env.SCENARIO_URL;
export const token = process.env.SCENARIO_TOKEN;

export const connect = (options = {}) => SandboxAgent.connect({ baseUrl, token, ...options });

/** One line to the test. */
export function tell(what, facts = {}) {
  process.stdout.write(`${JSON.stringify({ tell: what, ...facts })}\n`);
}

/** One line from the test. The input is closed again, so that it does not keep the process alive. */
export async function told() {
  const lines = createInterface({ input: process.stdin });
  const [line] = await once(lines, "line");
  lines.close();
  return JSON.parse(line);
}

/** All events of a session, as the SDK hands them to a listener. */
export function listen(session) {
  const events = [];
  let wake = () => {};
  session.onEvent((event) => {
    events.push(event);
    wake();
  });
  const payloads = (since) => events.slice(since).map((event) => event.payload);
  const updates = (since) => payloads(since).flatMap((payload) => payload.params?.update ?? []);
  const said = (since = 0) =>
    updates(since)
      .filter((update) => update.sessionUpdate === "agent_message_chunk")
      .map((update) => update.content.text);
  return {
    events,
    updates,
    said,
    /** The numbers of `/stream`. */
    numbers: (since = 0) => said(since).map((text) => Number(/^#(\d+)\//.exec(text)?.[1])).filter(Boolean),
    heard: (method) => payloads(0).filter((payload) => payload.method === method).map((payload) => payload.params),
    async until(condition) {
      while (!condition()) await new Promise((resolve) => (wake = resolve));
    },
  };
}

export const prompt = (session, text) => session.prompt([{ type: "text", text }]);

/** A whole turn. Its result may overtake its updates, which come by another connection: the last one is a mark. */
export async function turn(session, ear, text) {
  const since = ear.events.length;
  const { stopReason } = await prompt(session, `${text}\n/usage 1 2`);
  await ear.until(() => ear.updates(since).some((update) => update.sessionUpdate === "usage_update"));
  return { stopReason, said: ear.said(since) };
}

export async function state(session, ear) {
  const { said } = await turn(session, ear, "/state");
  return JSON.parse(said.join(""));
}

/** How a promise fails, as plain values. */
export async function failure(promise) {
  try {
    return { resolved: await promise };
  } catch (error) {
    return { name: error.constructor.name, code: error.code, message: error.message, data: error.data };
  }
}
