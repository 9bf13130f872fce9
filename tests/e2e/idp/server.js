// An identity provider for the tests: oidc-provider with one client and the people that standard input names.
// Its own pages ask for a name and a password (any) and for consent.
import fs from "node:fs";
import https from "node:https";
import { Provider } from "oidc-provider";

const wanted = JSON.parse(fs.readFileSync(0, "utf-8"));
const provider = new Provider(wanted.issuer, {
  clients: [
    {
      client_id: "tracking",
      client_secret: wanted.secret,
      redirect_uris: [wanted.redirect],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  claims: {
    openid: ["sub"],
    email: ["email", "email_verified"],
    profile: ["name"],
    groups: ["groups", "role"],
  },
  findAccount: async (_, id) =>
    wanted.people[id] && {
      accountId: id,
      claims: async () => ({ sub: id, email_verified: true, ...wanted.people[id] }),
    },
  features: { devInteractions: { enabled: true } },
  cookies: { keys: ["of-the-tests"] },
  pkce: { required: () => true },
});
provider.on("server_error", (_, error) => console.error(error));
https
  .createServer({ key: wanted.key, cert: wanted.certificate }, provider.callback())
  .listen(wanted.port, "0.0.0.0", () => console.log("ready"));
