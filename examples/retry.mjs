// Takes the next number of a counter for one order, once, however often the network or the server fails on the way.
//
// node retry.mjs [COUNTER] [ORDER]; README.md beside this file names the settings. Node 18 or newer, nothing else.
// An order has one Idempotency-Key, which is stored before the first try and sent with every try.

import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";

const TRY = 5_000; // milliseconds for one try, from connecting to the last byte of the answer
const LIMIT = 60_000; // milliseconds for all of them: no later try is begun
const until = performance.now() + LIMIT;

const { ODOMETER_URL, ODOMETER_KEY, ODOMETER_CACERT } = process.env;
// Trusted in place of all that Node trusts otherwise, and the host's name is checked too; fetch() has no such option.
const ca = readFileSync(ODOMETER_CACERT);

/** The order's key, made before the first try. The file stands for your database, where the key is committed with the
 * order: so it outlives this process, and the process that goes on after a crash asks for the same number. */
function keyOf(order) {
  try {
    writeFileSync(order, randomUUID(), { flag: "wx" }); // only if there is none
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  return readFileSync(order, "utf8");
}

/** One try. What the network did to it is marked with `again`. */
async function send(path, headers, body) {
  const answer = await new Promise((resolve, reject) => {
    // An address that is not https is an error here: a key that travels in clear is lost.
    const options = { method: "POST", ca, headers, signal: AbortSignal.timeout(TRY) };
    const asking = request(new URL(path, ODOMETER_URL), options, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece) => (text += piece));
      response.on("error", (error) => reject(Object.assign(error, { again: true }))); // cut off in the middle
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text }));
    });
    // Somebody else's certificate stays that, however often one looks at it.
    asking.on("error", (error) => reject(Object.assign(error, { again: !asking.socket?.authorizationError })));
    asking.end(body);
  });
  const isJson = (answer.headers["content-type"] ?? "").includes("json"); // a proxy's error page is not
  // Exact up to 2^53 - 1, the largest number of a counter that was not made for larger ones.
  answer.document = isJson ? JSON.parse(answer.text) : {};
  answer.code = answer.document.errors?.[0].code;
  return answer;
}

/** Sends one request until it is answered for good: the same bytes, and so the same key, with every try. */
async function ask(path, parameters, key) {
  const headers = { Authorization: `Bearer ${ODOMETER_KEY}`, "Content-Type": "application/json" };
  if (key) headers["Idempotency-Key"] = key;
  for (let backoff = 100; ; backoff = Math.min(2 * backoff, 3_000)) {
    let why;
    let wait = 0;
    try {
      const answer = await send(path, headers, JSON.stringify(parameters));
      if (![408, 429].includes(answer.status) && answer.status < 500) return answer;
      // Not for good. Nor is outcome_unknown: the same key gets the number that was taken, or takes it now.
      why = `${answer.status} ${answer.code}`;
      wait = Number(answer.headers["retry-after"]) || 0; // a date, which a proxy may send, counts as none
    } catch (error) {
      if (!error.again) throw error;
      why = `no answer: ${error.message}`;
    }
    // At least as long as the server asks for. The random part keeps those apart who failed together.
    const pause = wait * 1_000 + Math.random() * backoff;
    const isLate = performance.now() + pause >= until;
    if (isLate) throw new Error(`gave up: ${why}; a number may be taken, so run it again, same order`);
    console.error(`${why}; the same request again in ${Math.round(pause)} ms`);
    await sleep(pause);
  }
}

const [counter = "invoices", order = "order-4711.txt"] = process.argv.slice(2);
const key = keyOf(order);
const increment = `/api/v1/counters/${encodeURIComponent(counter)}/increment`;
let answer = await ask(increment, {}, key);
if (answer.code === "counter_not_found") {
  // Created without the key, which stands for one request: the increment. If the answer to this is lost, or somebody
  // else was faster, the next try is told counter_exists, and that is as good.
  answer = await ask("/api/v1/counters", { name: counter, start: 0 });
  // The first refusal did not use the key up.
  if (answer.status === 201 || answer.code === "counter_exists") answer = await ask(increment, {}, key);
}
// 409 counter_exhausted: the last number is issued, a person has to decide. 422 idempotency_key_reused: the key went
// with another request before. A new key would hide that mistake, and could take this order a second number.
if (answer.status !== 200) throw new Error(`refused: ${answer.status} ${JSON.stringify(answer.document)}`);
const { value } = answer.document.data.attributes;
console.log(`${counter}: ${value}, ${answer.headers["idempotency-replayed"] === "true" ? "replayed" : "new"}`);
