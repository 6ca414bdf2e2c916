// One request to an API: what is sent, what comes back, and what that means in words.

import { shortened } from "./tokens.js";

// What each status means for the person at the page, where the API does not say it in words of its own.
const MEANINGS = {
  200: "The API accepted the token.",
  401: "The API did not accept the token.",
  403: "The token is genuine, but it does not allow this.",
  503: "The API cannot check tokens at the moment. Yours may well be good: try again in a while.",
};

/** Send a GET with the token. Returns { request, answer, status, meaning }: lines to show, never the token itself. */
export async function call(url, token) {
  const { host, pathname } = new URL(url);
  const shown = { Host: host, Accept: "application/json", Authorization: `Bearer ${shortened(token)}` };
  const request = { line: `GET ${pathname} HTTP/1.1`, headers: Object.entries(shown) };
  let response;
  try {
    const headers = { Accept: "application/json", Authorization: `Bearer ${token}` };
    response = await fetch(url, { headers, cache: "no-store" });
  } catch {
    const meaning = `There was no answer from ${host}. Is the service running, and does it allow this page's origin?`;
    return { request, status: 0, meaning };
  }
  const text = await response.text();
  const body = readJson(text);
  const answer = {
    line: `HTTP/1.1 ${response.status} ${response.statusText}`.trim(),
    headers: [...response.headers].map(([name, value]) => [titled(name), value]),
    body: body === undefined ? text : JSON.stringify(body, null, 2),
  };
  return { request, answer, status: response.status, meaning: meaningOf(response, body ?? {}) };
}

function meaningOf(response, body) {
  const lacking = /scope="([^"]*)"/.exec(response.headers.get("WWW-Authenticate"))?.[1];
  if (lacking) {
    return `The token is genuine, but it lacks the scope ${lacking}. Pick it on this page, and get a new token.`;
  }
  const known = MEANINGS[response.status] ?? "The API answered something unexpected.";
  const wait = response.headers.get("Retry-After");
  return [body.detail ?? known, response.status === 401 && body.error_description, wait && `It asks for ${wait} s.`]
    .filter(Boolean)
    .join(" ");
}

function readJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// Browsers give the names of headers in lower case; as people write them they are easier to read.
function titled(name) {
  return name === "www-authenticate" ? "WWW-Authenticate" : name.replace(/\b[a-z]/g, (letter) => letter.toUpperCase());
}
