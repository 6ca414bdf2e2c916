// The page: what its buttons do. The login is in session.js, requests in calls.js, what is drawn in view.js.

import { call } from "./calls.js";
import { config } from "./config.js";
import * as session from "./session.js";
import { claimsOf } from "./tokens.js";
import { byId, callCard, element, showNotice, speak, tokenPanel } from "./view.js";

const MOST_CALLS = 6; // cards that stay on the page

// What each button asks, and with a token for whom.
const CALLS = [
  { label: "Call contacts", url: config.contacts, access: session.organizer },
  { label: "Call calendars", url: config.calendars, access: session.organizer },
  { label: "Weekly report", url: config.reports, access: session.reports },
];

// What the authorization server's refusals mean for the person at the page.
const REFUSALS = {
  access_denied: "You did not allow the access, so the app goes on without it.",
  consent_required: "The app needs your consent for this.",
  login_required: "Your login has ended. Log in again.",
  timeout: "The authorization server took too long to answer. Try again.",
};

// What the library's worker makes of a request that got no answer; where it fetches by itself it is a TypeError.
const UNREACHABLE = "Failed to fetch";

const held = new Map(); // by audience, the token that was used last

async function main() {
  byId("log-in").onclick = () => attempt(byId("log-in"), () => session.logIn());
  byId("log-out").onclick = () => attempt(byId("log-out"), session.logOut);
  byId("backend-link").href = config.backend;
  byId("actions").append(...CALLS.map(callButton));
  const refusal = await session.finishLogin().catch((error) => error);
  const user = await session.currentUser();
  fillPicker();
  showUser(user);
  if (user) {
    await attempt(null, () => obtain(session.organizer()));
  }
  if (refusal) {
    tell(refusal);
  }
}

function callButton({ label, url, access }) {
  const button = element("button", { type: "button" }, label, element("small", {}, new URL(url).host));
  button.onclick = () =>
    attempt(button, async () => {
      const { token, isNew } = await obtain(access());
      const remark = isNew ? "The app got a new token for this, without a click." : "The app already held the token.";
      showCall(label, await call(url, token), remark);
    });
  return button;
}

/** Get a token, and show what it says. */
async function obtain(access) {
  try {
    const token = await session.accessToken(access);
    const isNew = held.get(access.audience) !== token;
    if (isNew) {
      held.set(access.audience, token);
      byId("tokens").replaceChildren(...[...held.values()].map((one) => tokenPanel(claimsOf(one))));
    }
    return { token, isNew };
  } catch (error) {
    throw Object.assign(error, { access });
  }
}

function showCall(label, result, remark) {
  const calls = byId("calls");
  calls.querySelector(".empty")?.remove();
  calls.querySelectorAll("details").forEach((old) => (old.open = false));
  calls.prepend(callCard(label, result, remark));
  [...calls.children].slice(MOST_CALLS).forEach((old) => old.remove());
  speak(`${label}: ${result.meaning}`);
}

function fillPicker() {
  const picked = session.pickedScopes();
  byId("picker-audience").textContent = config.audience;
  byId("picker-scopes").append(
    ...Object.entries(config.scopes).map(([scope, words]) => {
      const box = element("input", { type: "checkbox", name: "scope", value: scope, checked: picked.includes(scope) });
      return element("label", {}, box, element("span", {}, words, element("code", {}, scope)));
    }),
  );
  const picker = byId("picker");
  picker.onsubmit = (event) => {
    event.preventDefault();
    attempt(picker.querySelector("button"), async () => {
      session.pickScopes(new FormData(picker).getAll("scope"));
      held.clear();
      await obtain(session.organizer());
      showNotice("The app has a new token, with the scopes that you picked.");
    });
  };
}

function showUser(user) {
  byId("welcome").hidden = Boolean(user);
  for (const id of ["workspace", "who", "log-out"]) {
    byId(id).hidden = !user;
  }
  byId("user-name").textContent = user?.name ?? "";
}

/** Do what a button is for, once at a time, and tell a failure in words. */
async function attempt(button, action) {
  if (button?.hasAttribute("aria-busy")) {
    return;
  }
  showNotice();
  button?.setAttribute("aria-busy", "true");
  try {
    await action();
  } catch (error) {
    tell(error);
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

function tell(error) {
  const known = REFUSALS[error.error];
  if (error.error === "login_required") {
    showUser();
    showNotice(known);
  } else if (error.error === "consent_required") {
    const review = () => attempt(null, () => session.logIn(error.access));
    showNotice(known, { action: { label: "Review and allow", run: review } });
  } else if (error.message === UNREACHABLE || error instanceof TypeError) {
    showNotice(`The authorization server at ${config.domain} does not answer.`, { bad: true });
  } else {
    showNotice(known ?? `That did not work. ${error.error_description ?? error.message}`, { bad: !known });
  }
}

await main();
