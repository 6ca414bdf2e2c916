// The implicit response, as old samples use it: the token comes in the fragment of this page's address.

import { call } from "./calls.js";
import { config } from "./config.js";
import { claimsOf } from "./tokens.js";
import { byId, callCard, showNotice, speak, tokenPanel } from "./view.js";

const SENT = "organizer.implicit"; // what this page has asked with, until it is answered

function offerRequest() {
  const parameters = {
    response_type: "id_token token",
    client_id: config.client_id,
    audience: config.audience,
    scope: "read:contacts read:calendar",
    redirect_uri: `${location.origin}/callback`,
    state: crypto.randomUUID(),
    nonce: crypto.randomUUID(),
  };
  const lines = Object.entries(parameters).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  byId("request").textContent = `${config.domain}/authorize?\n  ${lines.join("\n  &")}`;
  byId("send").href = `${config.domain}/authorize?${lines.join("&")}`;
  byId("send").onclick = () => sessionStorage.setItem(SENT, JSON.stringify(parameters));
}

/** Read the answer, and take the token out of the address, where a history or a bookmark would keep it. */
function readAnswer() {
  const answer = new URLSearchParams(location.hash.slice(1) || location.search);
  const sent = JSON.parse(sessionStorage.getItem(SENT));
  sessionStorage.removeItem(SENT);
  history.replaceState(null, "", location.pathname);
  return { answer, sent };
}

/** Return why the answer cannot be used, or undefined. An address that was typed in has no request of ours. */
function objection(answer, sent) {
  if (answer.has("error")) {
    return `The authorization server refused: ${answer.get("error_description") ?? answer.get("error")}`;
  }
  if (sent && answer.get("state") !== sent.state) {
    return "This is not the answer to the request of this page: the state differs.";
  }
  if (sent && claimsIn(answer, "id_token")?.nonce !== sent.nonce) {
    return "This login was made for another request: the nonce differs.";
  }
  return claimsIn(answer, "access_token") ? undefined : "The access token in this address cannot be read.";
}

function claimsIn(answer, name) {
  try {
    return claimsOf(answer.get(name));
  } catch {
    return undefined;
  }
}

async function main() {
  const { answer, sent } = readAnswer();
  offerRequest();
  if (!answer.has("access_token") && !answer.has("error")) {
    return;
  }
  const reason = objection(answer, sent);
  if (reason) {
    showNotice(reason, { bad: true });
    return;
  }
  if (!sent) {
    showNotice("This page has not sent the request itself, so it cannot tell who began this login.");
  }
  const token = answer.get("access_token");
  byId("tokens").replaceChildren(tokenPanel(claimsOf(token)));
  byId("received").hidden = false;
  for (const [label, url] of [["Call contacts", config.contacts], ["Call calendars", config.calendars]]) {
    const result = await call(url, token);
    byId("calls").append(callCard(label, result));
    speak(`${label}: ${result.meaning}`);
  }
}

await main();
