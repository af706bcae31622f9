/** What a page needs of the API: ask for activities, follow, cancel and list jobs. Copy it; it depends on nothing. */

/** A refusal. `code` is one of those in docs/front-ends.md; `message` is for people. */
export class Problem extends Error {
  constructor(status, document, retryAfter) {
    super(document.detail ?? `The API answered ${status}.`);
    this.status = status;
    this.code = document.code;
    this.errors = document.errors ?? [];
    this.retryAfter = Number(retryAfter) || null; // seconds
  }
}

const ENDS = ["completed", "failed", "rejected", "cancelled"];
const EVENTS = ["requested", "started", "progressed", "cancel-requested", ...ENDS];
const PAUSE_MS = 2000;

export class Teamfit {
  #api;
  #freshToken;
  #token = null; // in memory alone: neither in a cookie nor in localStorage

  /**
   * @param {string} api the API's address, such as "https://api.example.com"
   * @param {() => Promise<string>} freshToken asks your own back end for a token; called again when one has expired
   */
  constructor(api, freshToken) {
    this.#api = api;
    this.#freshToken = freshToken;
  }

  /** Ask for three activities; return the job. A repeat with the same key is the same job, however often it arrives. */
  ask({ organization_id, team_id, requirements, run_at }, key = crypto.randomUUID()) {
    const body = { organization_id, team_id, requirements, ...(run_at && { run_at }) };
    return this.#call("POST", "/api/activities/generate-custom", { body, headers: { "Idempotency-Key": key } });
  }

  /** The job as it stands now, with its activities once it is completed. */
  job(id) {
    return this.#call("GET", `/api/jobs/${encodeURIComponent(id)}`);
  }

  /** Withdraw a job. It throws a Problem when the job has ended: `job_completed`, `job_failed`, `job_rejected`. */
  cancel(id, reason) {
    return this.#call("POST", `/api/jobs/${encodeURIComponent(id)}/cancel`, { body: reason ? { reason } : {} });
  }

  /** The organization's jobs, the newest first. `query` may have `status`, `team_id`, `since`, `limit`. */
  async list(query = {}) {
    return (await this.#call("GET", `/api/jobs?${new URLSearchParams(query)}`)).jobs;
  }

  /**
   * Call `show(kind, data)` with each event of a job, and return once it has ended. Streams that break off are opened
   * again after the last event that came. `signal` (an AbortSignal) ends it early.
   */
  async follow(id, show, signal) {
    const seen = { last: 0, ended: false };
    while (!seen.ended && !signal?.aborted) {
      try {
        // A ticket is used up when its stream opens, so each stream gets one of its own.
        const { events_url } = await this.#call("POST", `/api/jobs/${encodeURIComponent(id)}/events-ticket`);
        await this.#stream(new URL(`${events_url}&after=${seen.last}`, this.#api), show, signal, seen);
      } catch (problem) {
        if (problem instanceof Problem && problem.status < 500 && problem.status !== 429) throw problem;
      }
      if (!seen.ended && !signal?.aborted) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  /** One stream, until the job has ended, the stream breaks off, or `signal` says so. */
  #stream(url, show, signal, seen) {
    return new Promise((resolve) => {
      const events = new EventSource(url);
      const stop = () => { events.close(); resolve(); };
      signal?.addEventListener("abort", stop, { once: true });
      events.onerror = stop; // the browser would come again with the ticket that is used up
      for (const kind of EVENTS) {
        events.addEventListener(kind, (event) => {
          seen.last = Number(event.lastEventId);
          seen.ended = ENDS.includes(kind);
          show(kind, JSON.parse(event.data).data);
          if (seen.ended) stop();
        });
      }
    });
  }

  async #call(method, path, { body, headers = {} } = {}, isSecondTry = false) {
    this.#token ??= await this.#freshToken();
    const answer = await fetch(this.#api + path, {
      method,
      headers: { Authorization: `Bearer ${this.#token}`, ...(body && { "Content-Type": "application/json" }), ...headers },
      ...(body && { body: JSON.stringify(body) }),
    });
    const document = await answer.json().catch(() => ({}));
    if (answer.ok) return document;
    if (document.code === "token_expired" && !isSecondTry) {
      this.#token = null;
      return this.#call(method, path, { body, headers }, true);
    }
    throw new Problem(answer.status, document, answer.headers.get("Retry-After"));
  }
}
