// The login, by the issuer's own library. Knows no page.
//
// Access tokens are kept in memory and refresh tokens in a worker, out of reach of other scripts. What a refresh token
// cannot do (a second audience, a page that was reloaded) the library does in a hidden frame while the login lasts.

import { Auth0Client } from "/library/auth0-spa-js.production.esm.js";
import { config } from "./config.js";

const PICKED = "organizer.scopes";
const FRAME_TIMEOUT = 15; // seconds
const DEFAULT_SCOPES = ["read:contacts", "read:calendar"];

let client = newClient();

function newClient() {
  return new Auth0Client({
    domain: config.domain,
    clientId: config.client_id,
    useRefreshTokens: true,
    useRefreshTokensFallback: true,
    authorizeTimeoutInSeconds: FRAME_TIMEOUT,
    workerUrl: "/library/auth0-spa-js.worker.production.js",
    authorizationParams: { audience: config.audience, redirect_uri: location.origin },
  });
}

/** What to ask for at the Organizer's audience. */
export function organizer() {
  return { audience: config.audience, scope: pickedScopes().join(" ") };
}

/** What to ask for at the audience of the reports. */
export function reports() {
  return { audience: config.reports_audience, scope: config.reports_scope };
}

/** Return the scopes to ask for at the Organizer's audience. They outlast a redirect and a reload. */
export function pickedScopes() {
  return JSON.parse(sessionStorage.getItem(PICKED)) ?? DEFAULT_SCOPES;
}

/** Ask for these scopes from now on. The library would answer with a wider token that it holds, so it starts anew. */
export function pickScopes(scopes) {
  sessionStorage.setItem(PICKED, JSON.stringify(scopes));
  client = newClient();
}

/** Leave for the login page, or for the consent page if only that is missing. */
export async function logIn(authorizationParams = organizer()) {
  await fetch(`${config.domain}/.well-known/openid-configuration`); // an error here can be told in words
  await client.loginWithRedirect({ authorizationParams });
}

/** Finish a login that has just come back to this page; without one, do nothing. */
export async function finishLogin() {
  const query = new URLSearchParams(location.search);
  if (!query.has("state") || !(query.has("code") || query.has("error"))) {
    return;
  }
  try {
    await client.handleRedirectCallback();
  } catch (error) {
    sessionStorage.removeItem(PICKED); // scopes that were declined must not be in the way of the next login
    throw error;
  } finally {
    history.replaceState(null, "", location.pathname); // neither a reload nor a bookmark is to send it again
  }
}

/** Return the user who is logged in, or undefined. */
export async function currentUser() {
  await client.checkSession({ authorizationParams: organizer() });
  return client.getUser();
}

export function logOut() {
  sessionStorage.removeItem(PICKED); // nor are they the next user's
  return client.logout({ logoutParams: { returnTo: location.origin } });
}

/** Return an access token without a click: the one that is held, or a new one where that has under a minute left. */
export function accessToken(authorizationParams) {
  return client.getTokenSilently({ authorizationParams });
}
