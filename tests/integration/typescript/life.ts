import createClient from "openapi-fetch";
import type { components, paths } from "./api";

type Job = components["schemas"]["JobStatus"];

const baseUrl = process.env.API_URL!;
const api = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${process.env.API_TOKEN}` } });

/** The kinds and data of a job's events, until the stream ends. A ticket stands in for the token, as in a browser. */
async function* follow(jobId: string): AsyncGenerator<[kind: string, event: unknown]> {
  const { data, error } = await api.POST("/api/jobs/{job_id}/events-ticket", { params: { path: { job_id: jobId } } });
  if (error) throw new Error(error.detail);
  const answer = await fetch(baseUrl + data.events_url, { headers: { Accept: "text/event-stream" } });
  if (!answer.ok || !answer.body) throw new Error(`events: ${answer.status}`);
  let rest = "";
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
    const messages = (rest + text).split("\n\n");
    rest = messages.pop() ?? "";
    for (const message of messages) {
      const fields = new Map(message.split("\n").map((line) => line.split(/: (.*)/s, 2) as [string, string]));
      const [kind, json] = [fields.get("event"), fields.get("data")];
      if (kind && json) yield [kind, JSON.parse(json)];
    }
  }
}

async function ask(requirements: string, key: string): Promise<string> {
  const { data, error } = await api.POST("/api/activities/generate-custom", {
    params: { header: { "Idempotency-Key": key } },
    body: { organization_id: "acme", team_id: process.env.API_TEAM ?? "acme-platform", requirements },
  });
  if (error) throw new Error(`${error.code}: ${error.detail}`);
  return data.job_id;
}

async function main(): Promise<void> {
  const path = { job_id: await ask("Two hours outdoors for nine people", "offsite-7") };
  console.log("asked", path.job_id);

  for await (const [kind] of follow(path.job_id)) console.log("event", kind);

  const read = await api.GET("/api/jobs/{job_id}", { params: { path } });
  if (read.error) throw new Error(read.error.detail);
  const job: Job = read.data;
  console.log("status", job.status, job.activities?.map((one) => one.title).join(", "));

  const other = { job_id: await ask("An evening of board games", "evening-7") };
  const { data: withdrawn } = await api.POST("/api/jobs/{job_id}/cancel", { params: { path: other }, body: { reason: "It rains" } });
  console.log("other", withdrawn?.status);

  const list = await api.GET("/api/jobs", { params: { query: { limit: 1 } } });
  console.log("list", list.data?.jobs.map((one) => one.job_id).join(", "));
}

await main();
