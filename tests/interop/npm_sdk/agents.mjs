// Which agents there are, how one is installed, and the MCP and skills configuration of a directory.

import { connect, failure, listen, state, tell } from "./stage.mjs";

const client = await connect();

const { agents } = await client.listAgents();
tell("listed", { ids: agents.map((agent) => agent.id), plain: agents.every((agent) => !agent.configOptions) });

const mock = await client.getAgent("mock", { config: true });
tell("mock", { mock });
tell("unknown", await failure(client.getAgent("nobody")));

tell("installed", { mock: await client.installAgent("mock"), again: await client.installAgent("mock", { reinstall: true }) });
tell("refused", await failure(client.installAgent("gemini", { agentVersion: "../../x" })));
tell("offline", await failure(client.installAgent("gemini")));

const directory = process.cwd();
const files = { type: "local", command: "files-server", args: ["--root", directory], env: { MODE: "read" } };
const issues = { type: "remote", url: "http://127.0.0.1:1/mcp", headers: { "X-Team": "core" }, transport: "http" };
await client.setMcpConfig({ directory, mcpName: "files" }, files);
await client.setMcpConfig({ directory, mcpName: "issues" }, issues);
tell("mcp", {
  files: await client.getMcpConfig({ directory, mcpName: "files" }),
  issues: await client.getMcpConfig({ directory, mcpName: "issues" }),
  none: await failure(client.getMcpConfig({ directory, mcpName: "none" })),
});

const skills = { sources: [{ type: "github", source: "example/skills", skills: ["review"], ref: "main" }] };
await client.setSkillsConfig({ directory, skillName: "house" }, skills);
tell("skills", {
  house: await client.getSkillsConfig({ directory, skillName: "house" }),
  none: await failure(client.getSkillsConfig({ directory, skillName: "none" })),
});

// The package always sends an empty list of servers: that is when the directory's own are used.
const session = await client.createSession({ agent: "mock", cwd: directory });
tell("session", { state: await state(session, listen(session)) });

await client.deleteMcpConfig({ directory, mcpName: "files" });
await client.deleteSkillsConfig({ directory, skillName: "house" });
tell("deleted", {
  mcp: await failure(client.getMcpConfig({ directory, mcpName: "files" })),
  skills: await failure(client.getSkillsConfig({ directory, skillName: "house" })),
});
await client.dispose();
