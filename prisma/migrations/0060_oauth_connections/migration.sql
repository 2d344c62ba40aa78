-- Accounts at upstreams that are connected by OAuth 2.1, in place of tokens that somebody pastes.
CREATE TYPE "CredentialKind" AS ENUM ('TOKEN', 'OAUTH');
CREATE TYPE "OauthClientSource" AS ENUM ('REGISTERED', 'DOCUMENT', 'DYNAMIC');

ALTER TABLE "services" ADD COLUMN "credential_kind" "CredentialKind" NOT NULL DEFAULT 'TOKEN';
GRANT UPDATE (credential_kind) ON services TO mcp_app;

-- What the platform is to an authorization server. A client belongs to the issuer that gave it, and is never shown to another.
CREATE TABLE "oauth_clients" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "service_id" UUID NOT NULL,
  "source" "OauthClientSource" NOT NULL,
  "issuer" TEXT NOT NULL,
  "client_id" TEXT NOT NULL,
  "sealed_secret" TEXT,
  "auth_method" TEXT NOT NULL,
  "expires_at" TIMESTAMPTZ(3),
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "registered_service_id" UUID GENERATED ALWAYS AS (CASE WHEN "source" = 'REGISTERED' THEN "service_id" END) STORED,
  CONSTRAINT "oauth_clients_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "oauth_clients_service_id_fkey" FOREIGN KEY ("service_id") REFERENCES "services"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "oauth_clients_service_id_source_issuer_key" ON "oauth_clients"("service_id", "source", "issuer");
-- At most one that an administrator entered.
CREATE UNIQUE INDEX "oauth_clients_registered_service_id_key" ON "oauth_clients"("registered_service_id");
CREATE INDEX "oauth_clients_org_id_idx" ON "oauth_clients"("org_id");

-- Connections that were begun: for minutes, for one use, for the user and the session that began them.
CREATE TABLE "oauth_authorizations" (
  "state_hash" TEXT NOT NULL,
  "org_id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "session_id" UUID NOT NULL,
  "service_id" UUID NOT NULL,
  "client_id" UUID NOT NULL,
  "shared" BOOLEAN NOT NULL,
  "sealed" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "expires_at" TIMESTAMPTZ(3) NOT NULL,
  "used_at" TIMESTAMPTZ(3),
  CONSTRAINT "oauth_authorizations_pkey" PRIMARY KEY ("state_hash"),
  CONSTRAINT "oauth_authorizations_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE,
  CONSTRAINT "oauth_authorizations_client_id_fkey" FOREIGN KEY ("client_id") REFERENCES "oauth_clients"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX "oauth_authorizations_user_id_idx" ON "oauth_authorizations"("user_id");
CREATE INDEX "oauth_authorizations_client_id_idx" ON "oauth_authorizations"("client_id");
CREATE INDEX "oauth_authorizations_expires_at_idx" ON "oauth_authorizations"("expires_at");

-- A connected account: of one user, or (no user) of the organisation. The lease is held by the one who refreshes it.
CREATE TABLE "oauth_connections" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "service_id" UUID NOT NULL,
  "user_id" UUID,
  "client_id" UUID NOT NULL,
  "issuer" TEXT NOT NULL,
  "token_endpoint" TEXT NOT NULL,
  "revocation_endpoint" TEXT,
  "resource" TEXT NOT NULL,
  "scope" TEXT,
  "sealed_access" TEXT,
  "sealed_refresh" TEXT,
  "expires_at" TIMESTAMPTZ(3),
  "version" INTEGER NOT NULL DEFAULT 1,
  "broken_at" TIMESTAMPTZ(3),
  "lease" UUID,
  "lease_until" TIMESTAMPTZ(3),
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updated_at" TIMESTAMPTZ(3) NOT NULL,
  "shared_service_id" UUID GENERATED ALWAYS AS (CASE WHEN "user_id" IS NULL THEN "service_id" END) STORED,
  CONSTRAINT "oauth_connections_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "oauth_connections_service_id_fkey" FOREIGN KEY ("service_id") REFERENCES "services"("id") ON DELETE CASCADE ON UPDATE CASCADE,
  CONSTRAINT "oauth_connections_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE,
  CONSTRAINT "oauth_connections_client_id_fkey" FOREIGN KEY ("client_id") REFERENCES "oauth_clients"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "oauth_connections_service_id_user_id_key" ON "oauth_connections"("service_id", "user_id");
-- At most one of the organisation.
CREATE UNIQUE INDEX "oauth_connections_shared_service_id_key" ON "oauth_connections"("shared_service_id");
CREATE INDEX "oauth_connections_user_id_idx" ON "oauth_connections"("user_id");
CREATE INDEX "oauth_connections_client_id_idx" ON "oauth_connections"("client_id");

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['oauth_clients', 'oauth_authorizations', 'oauth_connections'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY owner_all ON %I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
    EXECUTE format('CREATE POLICY system_all ON %I TO mcp_system USING (true) WITH CHECK (true)', name);
  END LOOP;
END
$$;

-- oauth_clients: an administrator enters one and takes it away; the platform registers itself. Its secret is read by neither.
GRANT SELECT (id, org_id, service_id, source, issuer, client_id, auth_method, expires_at, created_at, registered_service_id), INSERT, DELETE,
  UPDATE (sealed_secret, auth_method) ON oauth_clients TO mcp_app;
CREATE POLICY administer ON oauth_clients TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')))
  WITH CHECK (
    org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')) AND source = 'REGISTERED'
    AND EXISTS (SELECT FROM services s WHERE s.id = service_id AND s.org_id = (SELECT app.org_id()))
  );
CREATE POLICY add_needs_mfa ON oauth_clients AS RESTRICTIVE FOR INSERT TO mcp_app WITH CHECK ((SELECT app.has_fresh_mfa()));
CREATE POLICY change_needs_mfa ON oauth_clients AS RESTRICTIVE FOR UPDATE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY remove_needs_mfa ON oauth_clients AS RESTRICTIVE FOR DELETE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
GRANT SELECT, INSERT, DELETE ON oauth_clients TO mcp_system;

-- oauth_authorizations: the platform's alone
GRANT SELECT, INSERT, UPDATE (used_at), DELETE ON oauth_authorizations TO mcp_system;

-- oauth_connections: one's own, and for administrators the organisation's. Tokens go in and do not come out this way.
GRANT SELECT (id, org_id, service_id, user_id, client_id, issuer, resource, scope, expires_at, version, broken_at, created_at, updated_at,
  shared_service_id), INSERT, DELETE ON oauth_connections TO mcp_app;
CREATE POLICY own_or_administered ON oauth_connections TO mcp_app
  USING (
    org_id = (SELECT app.org_id())
    AND (user_id = (SELECT auth.uid()) OR (user_id IS NULL AND (SELECT app.has_scope('mcp:admin'))))
  )
  WITH CHECK (
    org_id = (SELECT app.org_id())
    AND ((user_id = (SELECT auth.uid()) AND (SELECT app.has_scope('user:token')))
      OR (user_id IS NULL AND (SELECT app.has_scope('mcp:admin'))))
    AND EXISTS (SELECT FROM services s WHERE s.id = service_id AND s.org_id = (SELECT app.org_id()))
  );
CREATE POLICY remove_needs_scope ON oauth_connections AS RESTRICTIVE FOR DELETE TO mcp_app
  USING ((SELECT app.has_scope('user:token')) OR user_id IS NULL);
CREATE POLICY add_shared_needs_mfa ON oauth_connections AS RESTRICTIVE FOR INSERT TO mcp_app
  WITH CHECK (user_id IS NOT NULL OR (SELECT app.has_fresh_mfa()));
CREATE POLICY remove_shared_needs_mfa ON oauth_connections AS RESTRICTIVE FOR DELETE TO mcp_app
  USING (user_id IS NOT NULL OR (SELECT app.has_fresh_mfa()));
GRANT SELECT, DELETE, UPDATE (sealed_access, sealed_refresh, scope, expires_at, version, broken_at, lease, lease_until, updated_at)
  ON oauth_connections TO mcp_system;

-- The connected account that the caller may use at a service of their organisation: their own, or the shared one.
CREATE FUNCTION app.service_connection(service uuid)
RETURNS TABLE (id uuid, owner text, sealed_access text, refreshable boolean, version integer, expires_at timestamptz, broken boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT c.id, coalesce(c.user_id::text, 'shared'), c.sealed_access, c.sealed_refresh IS NOT NULL, c.version, c.expires_at, c.broken_at IS NOT NULL
  FROM public.services s JOIN public.oauth_connections c ON c.service_id = s.id AND c.org_id = s.org_id
  WHERE s.id = service AND s.org_id = app.org_id() AND s.credential_kind = 'OAUTH'
    AND ((s.credential_mode = 'PERSONAL' AND c.user_id = auth.uid()) OR (s.credential_mode = 'SHARED' AND c.user_id IS NULL))
$$;
REVOKE EXECUTE ON FUNCTION app.service_connection(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.service_connection(uuid) TO mcp_app;

-- As before, and the connected accounts too. The clients go as well: one that was registered for a service must not serve
-- whoever moves it; deleting them takes connections and whatever was begun along.
CREATE OR REPLACE FUNCTION app.forget_service_credentials(service uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  DELETE FROM public.user_tokens t USING public.services s
    WHERE t.service_id = service AND s.id = service AND s.org_id = app.org_id() AND app.has_scope('mcp:write');
  DELETE FROM public.shared_tokens t USING public.services s
    WHERE t.service_id = service AND s.id = service AND s.org_id = app.org_id() AND app.has_scope('mcp:write');
  DELETE FROM public.oauth_clients t USING public.services s
    WHERE t.service_id = service AND s.id = service AND s.org_id = app.org_id() AND app.has_scope('mcp:write');
$$;

CREATE OR REPLACE FUNCTION app.end_member_credentials(member uuid, leaves boolean, at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.sessions SET revoked_at = at
    WHERE user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND revoked_at IS NULL;
  UPDATE public.api_keys SET revoked_at = at
    WHERE leaves AND user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND revoked_at IS NULL;
  DELETE FROM public.user_tokens
    WHERE leaves AND user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin');
  DELETE FROM public.oauth_connections
    WHERE leaves AND user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin');
  DELETE FROM public.oauth_authorizations
    WHERE user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin');
$$;
