-- CreateEnum
CREATE TYPE "Role" AS ENUM ('VIEWER', 'DEVELOPER', 'ORG_ADMIN');
CREATE TYPE "CredentialMode" AS ENUM ('NONE', 'SHARED', 'PERSONAL');
CREATE TYPE "ToolAccess" AS ENUM ('READ', 'WRITE', 'BLOCKED');

CREATE TABLE "users" (
  "id" UUID NOT NULL,
  "email" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "password_hash" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "disabled_at" TIMESTAMPTZ(3),
  CONSTRAINT "users_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "users_email_key" ON "users"("email");

CREATE TABLE "organizations" (
  "id" UUID NOT NULL,
  "slug" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "organizations_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "organizations_slug_key" ON "organizations"("slug");

CREATE TABLE "memberships" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "role" "Role" NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "deactivated_at" TIMESTAMPTZ(3),
  CONSTRAINT "memberships_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "memberships_org_id_fkey" FOREIGN KEY ("org_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE,
  CONSTRAINT "memberships_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "memberships_org_id_user_id_key" ON "memberships"("org_id", "user_id");
CREATE INDEX "memberships_user_id_idx" ON "memberships"("user_id");

CREATE TABLE "sessions" (
  "id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "expires_at" TIMESTAMPTZ(3) NOT NULL,
  "revoked_at" TIMESTAMPTZ(3),
  "ip" TEXT,
  "user_agent" TEXT,
  "mfa_at" TIMESTAMPTZ(3),
  CONSTRAINT "sessions_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "sessions_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX "sessions_user_id_idx" ON "sessions"("user_id");

CREATE TABLE "data_keys" (
  "category" TEXT NOT NULL,
  "version" INTEGER NOT NULL,
  "wrapped" BYTEA NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "data_keys_pkey" PRIMARY KEY ("category", "version")
);

CREATE TABLE "signing_keys" (
  "kid" TEXT NOT NULL,
  "public_jwk" JSONB NOT NULL,
  "sealed_private" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "retired_at" TIMESTAMPTZ(3),
  CONSTRAINT "signing_keys_pkey" PRIMARY KEY ("kid")
);

CREATE TABLE "api_keys" (
  "id" UUID NOT NULL,
  "public_id" TEXT NOT NULL,
  "org_id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "name" TEXT NOT NULL,
  "secret_hash" TEXT NOT NULL,
  "hint" TEXT NOT NULL,
  "scopes" TEXT[],
  "expires_at" TIMESTAMPTZ(3),
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "last_used_at" TIMESTAMPTZ(3),
  "revoked_at" TIMESTAMPTZ(3),
  CONSTRAINT "api_keys_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "api_keys_org_id_fkey" FOREIGN KEY ("org_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE,
  CONSTRAINT "api_keys_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "api_keys_public_id_key" ON "api_keys"("public_id");
CREATE INDEX "api_keys_org_id_user_id_idx" ON "api_keys"("org_id", "user_id");
CREATE INDEX "api_keys_user_id_idx" ON "api_keys"("user_id");

CREATE TABLE "services" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "slug" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "description" TEXT NOT NULL DEFAULT '',
  "endpoint" TEXT NOT NULL,
  "credential_mode" "CredentialMode" NOT NULL DEFAULT 'NONE',
  "credential_header" TEXT NOT NULL DEFAULT 'authorization',
  "enabled" BOOLEAN NOT NULL DEFAULT true,
  "trusted" BOOLEAN NOT NULL DEFAULT false,
  "version" INTEGER NOT NULL DEFAULT 1,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updated_at" TIMESTAMPTZ(3) NOT NULL,
  CONSTRAINT "services_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "services_org_id_fkey" FOREIGN KEY ("org_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "services_org_id_slug_key" ON "services"("org_id", "slug");

CREATE TABLE "tool_policies" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "service_id" UUID NOT NULL,
  "tool" TEXT NOT NULL,
  "access" "ToolAccess" NOT NULL,
  CONSTRAINT "tool_policies_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "tool_policies_service_id_fkey" FOREIGN KEY ("service_id") REFERENCES "services"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "tool_policies_service_id_tool_key" ON "tool_policies"("service_id", "tool");
CREATE INDEX "tool_policies_org_id_idx" ON "tool_policies"("org_id");

CREATE TABLE "user_tokens" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "service_id" UUID NOT NULL,
  "ciphertext" TEXT NOT NULL,
  "hint" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updated_at" TIMESTAMPTZ(3) NOT NULL,
  CONSTRAINT "user_tokens_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "user_tokens_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE,
  CONSTRAINT "user_tokens_service_id_fkey" FOREIGN KEY ("service_id") REFERENCES "services"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "user_tokens_user_id_service_id_key" ON "user_tokens"("user_id", "service_id");
CREATE INDEX "user_tokens_service_id_idx" ON "user_tokens"("service_id");

CREATE TABLE "shared_tokens" (
  "service_id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "ciphertext" TEXT NOT NULL,
  "hint" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updated_at" TIMESTAMPTZ(3) NOT NULL,
  CONSTRAINT "shared_tokens_pkey" PRIMARY KEY ("service_id"),
  CONSTRAINT "shared_tokens_service_id_fkey" FOREIGN KEY ("service_id") REFERENCES "services"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX "shared_tokens_org_id_idx" ON "shared_tokens"("org_id");

CREATE TABLE "persisted_operations" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "sha256" TEXT NOT NULL,
  "name" TEXT,
  "kind" TEXT NOT NULL,
  "document" TEXT NOT NULL,
  "required_scopes" TEXT[],
  "cost" INTEGER NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "persisted_operations_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "persisted_operations_org_id_fkey" FOREIGN KEY ("org_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "persisted_operations_org_id_sha256_key" ON "persisted_operations"("org_id", "sha256");

CREATE TABLE "request_log" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "service_id" UUID NOT NULL,
  "service_slug" TEXT NOT NULL,
  "method" TEXT NOT NULL,
  "tool" TEXT,
  "arguments" JSONB,
  "status" TEXT NOT NULL,
  "duration_ms" INTEGER NOT NULL,
  "ip" TEXT,
  "user_agent" TEXT,
  "request_id" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "request_log_pkey" PRIMARY KEY ("id")
);
CREATE INDEX "request_log_org_id_id_idx" ON "request_log"("org_id", "id");
CREATE INDEX "request_log_org_id_user_id_id_idx" ON "request_log"("org_id", "user_id", "id");

CREATE TABLE "usage_daily" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "day" DATE NOT NULL,
  "service_slug" TEXT NOT NULL,
  "tool" TEXT NOT NULL,
  "user_id" UUID NOT NULL,
  "calls" INTEGER NOT NULL,
  "errors" INTEGER NOT NULL,
  "total_duration_ms" BIGINT NOT NULL,
  "max_duration_ms" INTEGER NOT NULL,
  CONSTRAINT "usage_daily_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "usage_daily_org_id_day_service_slug_tool_user_id_key" ON "usage_daily"("org_id", "day", "service_slug", "tool", "user_id");

CREATE TABLE "audit_events" (
  "id" UUID NOT NULL,
  "org_id" UUID,
  "actor_kind" TEXT NOT NULL,
  "user_id" UUID,
  "action" TEXT NOT NULL,
  "target" TEXT,
  "detail" JSONB,
  "outcome" TEXT NOT NULL,
  "ip" TEXT,
  "request_id" TEXT,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "sequence" BIGINT NOT NULL DEFAULT 0,
  "hash" TEXT NOT NULL DEFAULT '',
  CONSTRAINT "audit_events_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "audit_events_org_id_sequence_key" ON "audit_events"("org_id", "sequence");
CREATE INDEX "audit_events_org_id_id_idx" ON "audit_events"("org_id", "id");

CREATE TABLE "audit_heads" (
  "org_id" UUID NOT NULL,
  "sequence" BIGINT NOT NULL,
  "hash" TEXT NOT NULL,
  CONSTRAINT "audit_heads_pkey" PRIMARY KEY ("org_id")
);

-- Row level security: enabled, forced, and closed to all but the owner until a policy below opens a row.
-- The owner needs a policy of its own, since forced security binds it too and migrations and definer functions run as it.
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['users', 'organizations', 'memberships', 'sessions', 'data_keys', 'signing_keys', 'api_keys',
    'services', 'tool_policies', 'user_tokens', 'shared_tokens', 'persisted_operations', 'request_log', 'usage_daily',
    'audit_events', 'audit_heads'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY owner_all ON %I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
  END LOOP;
END
$$;

-- users
GRANT SELECT (id, email, name, created_at, disabled_at), UPDATE (name) ON users TO mcp_app;
CREATE POLICY read_self_or_colleague ON users FOR SELECT TO mcp_app USING (
  id = (SELECT auth.uid())
  OR EXISTS (SELECT FROM memberships m WHERE m.user_id = users.id AND m.org_id = (SELECT app.org_id()))
);
CREATE POLICY change_self ON users FOR UPDATE TO mcp_app USING (id = (SELECT auth.uid())) WITH CHECK (id = (SELECT auth.uid()));
GRANT SELECT, INSERT, UPDATE ON users TO mcp_system;
CREATE POLICY system_all ON users TO mcp_system USING (true) WITH CHECK (true);

-- organizations
GRANT SELECT, UPDATE (name) ON organizations TO mcp_app;
CREATE POLICY read_own ON organizations FOR SELECT TO mcp_app USING (id = (SELECT app.org_id()));
CREATE POLICY change_own ON organizations FOR UPDATE TO mcp_app
  USING (id = (SELECT app.org_id()) AND (SELECT app.has_scope('org:write')))
  WITH CHECK (id = (SELECT app.org_id()));
GRANT SELECT, INSERT, UPDATE ON organizations TO mcp_system;
CREATE POLICY system_all ON organizations TO mcp_system USING (true) WITH CHECK (true);

-- memberships
GRANT SELECT, INSERT, UPDATE (role, deactivated_at), DELETE ON memberships TO mcp_app;
CREATE POLICY read_colleagues ON memberships FOR SELECT TO mcp_app USING (org_id = (SELECT app.org_id()));
CREATE POLICY add ON memberships FOR INSERT TO mcp_app
  WITH CHECK (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('org:admin')));
CREATE POLICY change ON memberships FOR UPDATE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('org:admin')))
  WITH CHECK (org_id = (SELECT app.org_id()));
CREATE POLICY remove ON memberships FOR DELETE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('org:admin')));
GRANT SELECT, INSERT, UPDATE ON memberships TO mcp_system;
CREATE POLICY system_all ON memberships TO mcp_system USING (true) WITH CHECK (true);

-- sessions
GRANT SELECT, UPDATE (revoked_at) ON sessions TO mcp_app;
CREATE POLICY read_own ON sessions FOR SELECT TO mcp_app USING (user_id = (SELECT auth.uid()) AND org_id = (SELECT app.org_id()));
CREATE POLICY end_own ON sessions FOR UPDATE TO mcp_app
  USING (user_id = (SELECT auth.uid()) AND org_id = (SELECT app.org_id()))
  WITH CHECK (user_id = (SELECT auth.uid()) AND org_id = (SELECT app.org_id()));
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO mcp_system;
CREATE POLICY system_all ON sessions TO mcp_system USING (true) WITH CHECK (true);

-- data_keys, signing_keys: the platform's alone
GRANT SELECT, INSERT ON data_keys TO mcp_system;
CREATE POLICY system_all ON data_keys TO mcp_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE (retired_at), DELETE ON signing_keys TO mcp_system;
CREATE POLICY system_all ON signing_keys TO mcp_system USING (true) WITH CHECK (true);

-- api_keys: one's own, and for administrators (metadata, revocation) those of the organisation
GRANT SELECT (id, public_id, org_id, user_id, name, hint, scopes, expires_at, created_at, last_used_at, revoked_at),
  INSERT, UPDATE (revoked_at) ON api_keys TO mcp_app;
CREATE POLICY read_own_or_administered ON api_keys FOR SELECT TO mcp_app USING (
  org_id = (SELECT app.org_id()) AND (user_id = (SELECT auth.uid()) OR (SELECT app.has_scope('org:admin')))
);
CREATE POLICY make_own ON api_keys FOR INSERT TO mcp_app WITH CHECK (
  org_id = (SELECT app.org_id()) AND user_id = (SELECT auth.uid()) AND (SELECT app.has_scope('user:token'))
);
CREATE POLICY revoke_own_or_administered ON api_keys FOR UPDATE TO mcp_app
  USING (
    org_id = (SELECT app.org_id())
    AND ((user_id = (SELECT auth.uid()) AND (SELECT app.has_scope('user:token'))) OR (SELECT app.has_scope('org:admin')))
  )
  WITH CHECK (org_id = (SELECT app.org_id()));
GRANT SELECT, INSERT, UPDATE ON api_keys TO mcp_system;
CREATE POLICY system_all ON api_keys TO mcp_system USING (true) WITH CHECK (true);

-- services
GRANT SELECT, INSERT, DELETE,
  UPDATE (slug, name, description, endpoint, credential_mode, credential_header, enabled, trusted, version, updated_at) ON services TO mcp_app;
CREATE POLICY read_own ON services FOR SELECT TO mcp_app USING (org_id = (SELECT app.org_id()));
CREATE POLICY add ON services FOR INSERT TO mcp_app
  WITH CHECK (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:write')));
CREATE POLICY change ON services FOR UPDATE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:write')))
  WITH CHECK (org_id = (SELECT app.org_id()));
CREATE POLICY remove ON services FOR DELETE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:write')));
GRANT SELECT, INSERT, UPDATE ON services TO mcp_system;
CREATE POLICY system_all ON services TO mcp_system USING (true) WITH CHECK (true);

-- tool_policies
GRANT SELECT, INSERT, DELETE, UPDATE (access) ON tool_policies TO mcp_app;
CREATE POLICY read_own ON tool_policies FOR SELECT TO mcp_app USING (org_id = (SELECT app.org_id()));
CREATE POLICY add ON tool_policies FOR INSERT TO mcp_app WITH CHECK (
  org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin'))
  AND EXISTS (SELECT FROM services s WHERE s.id = service_id AND s.org_id = (SELECT app.org_id()))
);
CREATE POLICY change ON tool_policies FOR UPDATE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')))
  WITH CHECK (org_id = (SELECT app.org_id()));
CREATE POLICY remove ON tool_policies FOR DELETE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')));

-- user_tokens: the ciphertext can be written but not read; app.service_credential() hands the caller their own
GRANT SELECT (id, org_id, user_id, service_id, hint, created_at, updated_at), INSERT, DELETE,
  UPDATE (ciphertext, hint, updated_at) ON user_tokens TO mcp_app;
CREATE POLICY "Users can only access their own tokens"
ON user_tokens
FOR ALL
USING (auth.uid() = user_id);
CREATE POLICY in_the_acting_organization ON user_tokens AS RESTRICTIVE TO mcp_app
  USING (org_id = (SELECT app.org_id()))
  WITH CHECK (
    org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('user:token'))
    AND EXISTS (SELECT FROM services s WHERE s.id = service_id AND s.org_id = (SELECT app.org_id()))
  );

-- shared_tokens
GRANT SELECT (service_id, org_id, hint, created_at, updated_at), INSERT, DELETE,
  UPDATE (ciphertext, hint, updated_at) ON shared_tokens TO mcp_app;
CREATE POLICY administer ON shared_tokens TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')))
  WITH CHECK (
    org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin'))
    AND EXISTS (SELECT FROM services s WHERE s.id = service_id AND s.org_id = (SELECT app.org_id()))
  );

-- persisted_operations
GRANT SELECT, INSERT, DELETE ON persisted_operations TO mcp_app;
CREATE POLICY read_own ON persisted_operations FOR SELECT TO mcp_app USING (org_id = (SELECT app.org_id()));
CREATE POLICY register ON persisted_operations FOR INSERT TO mcp_app WITH CHECK (
  org_id = (SELECT app.org_id()) AND user_id = (SELECT auth.uid()) AND (SELECT app.has_scope('mcp:write'))
);
CREATE POLICY remove ON persisted_operations FOR DELETE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:write')));

-- request_log: written by the platform, read by its own user and by the organisation's administrators
GRANT SELECT ON request_log TO mcp_app;
CREATE POLICY read_own_or_monitored ON request_log FOR SELECT TO mcp_app USING (
  org_id = (SELECT app.org_id()) AND (user_id = (SELECT auth.uid()) OR (SELECT app.has_scope('mcp:admin')))
);
GRANT SELECT, INSERT, DELETE ON request_log TO mcp_system;
CREATE POLICY system_all ON request_log TO mcp_system USING (true) WITH CHECK (true);

-- usage_daily: organisation-level analytics need DEVELOPER
GRANT SELECT ON usage_daily TO mcp_app;
CREATE POLICY read_own_or_analysed ON usage_daily FOR SELECT TO mcp_app USING (
  org_id = (SELECT app.org_id()) AND (user_id = (SELECT auth.uid()) OR (SELECT app.is_at_least_developer()))
);
GRANT SELECT, INSERT, UPDATE, DELETE ON usage_daily TO mcp_system;
CREATE POLICY system_all ON usage_daily TO mcp_system USING (true) WITH CHECK (true);

-- audit_events: append only, for everybody
GRANT SELECT, INSERT ON audit_events TO mcp_app;
CREATE POLICY read_administered ON audit_events FOR SELECT TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.is_admin()) AND (SELECT app.has_scope('org:read')));
CREATE POLICY append_own ON audit_events FOR INSERT TO mcp_app
  WITH CHECK (org_id = (SELECT app.org_id()) AND user_id = (SELECT auth.uid()));
GRANT SELECT, INSERT ON audit_events TO mcp_system;
CREATE POLICY system_read ON audit_events FOR SELECT TO mcp_system USING (true);
CREATE POLICY system_append ON audit_events FOR INSERT TO mcp_system WITH CHECK (true);

-- A hash chain for each organisation: every event carries the SHA-256 of itself and of the event before it. The head's
-- row lock orders appends of one organisation; it is taken by the last statement before a commit, so it is held briefly.
CREATE FUNCTION app.audit_hash(previous text, event audit_events) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT encode(sha256(convert_to(jsonb_build_array(previous, event.sequence, event.id, event.org_id, event.actor_kind,
    event.user_id, event.action, event.target, event.detail, event.outcome, event.ip, event.request_id,
    extract(epoch FROM event.created_at))::text, 'UTF8')), 'hex')
$$;

CREATE FUNCTION app.chain_audit_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
  chain uuid := coalesce(NEW.org_id, '00000000-0000-0000-0000-000000000000');
  head public.audit_heads;
BEGIN
  INSERT INTO public.audit_heads VALUES (chain, 0, '') ON CONFLICT (org_id) DO NOTHING;
  SELECT * INTO head FROM public.audit_heads WHERE org_id = chain FOR UPDATE;
  NEW.sequence := head.sequence + 1;
  NEW.hash := app.audit_hash(head.hash, NEW);
  UPDATE public.audit_heads SET sequence = NEW.sequence, hash = NEW.hash WHERE org_id = chain;
  RETURN NEW;
END
$$;
CREATE TRIGGER chain BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION app.chain_audit_event();

-- Sets the identity of the transaction, and confirms in the same breath that the credential still stands: the session or
-- key is neither ended nor expired, its user and membership are active, and the role is still the one that was granted.
CREATE FUNCTION app.identify(kind text, credential uuid, claims text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
  c jsonb := claims::jsonb;
  uid uuid := c ->> 'sub';
  org uuid := c ->> 'org';
BEGIN
  IF kind = 'user' THEN
    PERFORM FROM public.sessions s WHERE s.id = credential AND s.user_id = uid AND s.org_id = org
      AND s.revoked_at IS NULL AND s.expires_at > now();
  ELSIF kind = 'apiKey' THEN
    PERFORM FROM public.api_keys k WHERE k.id = credential AND k.user_id = uid AND k.org_id = org
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now());
  ELSE
    RAISE EXCEPTION 'unknown kind of credential' USING ERRCODE = 'MC401';
  END IF;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the credential does not stand' USING ERRCODE = 'MC401';
  END IF;
  PERFORM FROM public.memberships m JOIN public.users u ON u.id = m.user_id
    WHERE m.org_id = org AND m.user_id = uid AND m.deactivated_at IS NULL AND u.disabled_at IS NULL
      AND m.role::text = c ->> 'org_role';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the membership does not stand' USING ERRCODE = 'MC401';
  END IF;
  PERFORM set_config('request.jwt.claims', claims, true);
END
$$;

-- The sealed credential that the caller may use at a service of their organisation: their own, or the shared one.
CREATE FUNCTION app.service_credential(service uuid) RETURNS TABLE (owner text, ciphertext text, updated_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
  SELECT t.user_id::text, t.ciphertext, t.updated_at
  FROM public.services s JOIN public.user_tokens t ON t.service_id = s.id
  WHERE s.id = service AND s.org_id = app.org_id() AND s.credential_mode = 'PERSONAL' AND t.user_id = auth.uid() AND t.org_id = s.org_id
  UNION ALL
  SELECT 'shared', t.ciphertext, t.updated_at
  FROM public.services s JOIN public.shared_tokens t ON t.service_id = s.id
  WHERE s.id = service AND s.org_id = app.org_id() AND s.credential_mode = 'SHARED' AND t.org_id = s.org_id
$$;

-- A credential belongs to the address it was given for. When a service moves, nobody's may follow it there, though the
-- member who moves it can see only their own.
CREATE FUNCTION app.forget_service_credentials(service uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
  DELETE FROM public.user_tokens t USING public.services s
    WHERE t.service_id = service AND s.id = service AND s.org_id = app.org_id() AND app.has_scope('mcp:write');
  DELETE FROM public.shared_tokens t USING public.services s
    WHERE t.service_id = service AND s.id = service AND s.org_id = app.org_id() AND app.has_scope('mcp:write');
$$;

REVOKE EXECUTE ON FUNCTION app.forget_service_credentials(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.forget_service_credentials(uuid) TO mcp_app;
REVOKE EXECUTE ON FUNCTION app.identify(text, uuid, text), app.service_credential(uuid), app.chain_audit_event(),
  app.audit_hash(text, audit_events) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.identify(text, uuid, text), app.service_credential(uuid) TO mcp_app;
