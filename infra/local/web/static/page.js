/** The page: pick a team, write a wish, watch the activities come, cancel, see the list. All texts go in as text. */
import { Problem, Teamfit } from "./teamfit.js";

const at = (id) => document.getElementById(id);
const form = at("wish");
const LISTED = { limit: 20 };

const { api, teams } = await (await fetch("my/session")).json();
const clients = new Map(); // one for each organization: a token speaks for one
let watching = new AbortController();

for (const team of teams) form.elements.team.append(new Option(team.name, team.id));

const teamNow = () => teams.find((one) => one.id === form.elements.team.value);

function clientOf({ organization_id }) {
  if (!clients.has(organization_id)) clients.set(organization_id, new Teamfit(api, () => tokenFor(organization_id)));
  return clients.get(organization_id);
}

async function tokenFor(organization_id) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("my/teamfit-token", { method: "POST", headers, body: JSON.stringify({ organization_id }) });
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()).token;
}

/** Run a step, and say what went wrong where the reader looks. */
async function tell(step) {
  at("problem").hidden = true;
  try {
    return await step();
  } catch (problem) {
    const wait = problem instanceof Problem && problem.retryAfter ? ` Try again in ${problem.retryAfter} s.` : "";
    at("problem").textContent = `${problem.message}${wait}`;
    at("problem").hidden = false;
  }
}

function showActivity(number, title, details = "") {
  const item = at("activities").children[number - 1] ?? at("activities").appendChild(document.createElement("li"));
  const name = document.createElement("strong");
  name.textContent = title;
  item.replaceChildren(name, details && ` ${details}`);
  item.classList.toggle("coming", !details);
}

async function watch(team, id) {
  watching.abort();
  const mine = (watching = new AbortController());
  const client = clientOf(team);
  at("job").hidden = false;
  at("cancel").hidden = false;
  at("activities").replaceChildren();
  at("status").textContent = "asked";
  at("cancel").onclick = () => tell(() => client.cancel(id, "withdrawn on the page"));
  await client.follow(id, (kind, data) => {
    if (mine.signal.aborted) return;
    at("status").textContent = kind;
    // A new attempt tells its own titles: those of the one before were never saved.
    if (kind === "started") at("activities").replaceChildren();
    if (kind === "progressed" && data.step === "activity") showActivity(data.number, data.title);
  }, mine.signal);
  if (mine.signal.aborted) return;
  await showEnd(await client.job(id));
  await showList(team);
}

function showEnd(job) {
  at("cancel").hidden = true;
  at("activities").replaceChildren();
  at("status").textContent = [job.status, job.error_message].filter(Boolean).join(": ");
  job.activities.forEach((one, index) => showActivity(index + 1, one.title, `${one.duration_minutes} minutes. ${one.description}`));
}

async function showList(team) {
  const jobs = await clientOf(team).list({ team_id: team.id, ...LISTED });
  if (team !== teamNow()) return;
  at("jobs").replaceChildren(...jobs.map((job) => {
    const row = document.createElement("tr");
    for (const text of [new Date(job.created_at).toLocaleString(), job.status, job.job_id]) row.insertCell().textContent = text;
    return row;
  }));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const team = teamNow();
  const wish = { organization_id: team.organization_id, team_id: team.id, requirements: form.elements.requirements.value };
  const button = form.querySelector("button");
  tell(async () => {
    button.disabled = true; // a second click would be a second wish, with a key of its own
    const { job_id } = await clientOf(team).ask(wish).finally(() => { button.disabled = false; });
    await watch(team, job_id);
  });
});
form.elements.team.addEventListener("change", () => tell(() => showList(teamNow())));
await tell(() => showList(teamNow()));
