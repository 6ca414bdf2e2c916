// Where everything is: the server of this page knows, from its environment.

const response = await fetch("/config.json");

export const config = await response.json();
