-- What a registered operation was found to need when it was analysed, and its version under its name.
ALTER TABLE "persisted_operations"
  ADD COLUMN "version" INTEGER NOT NULL DEFAULT 1,
  ADD COLUMN "step_up" BOOLEAN NOT NULL DEFAULT false,
  ADD COLUMN "records" TEXT[] NOT NULL DEFAULT '{}';
UPDATE "persisted_operations" p SET "version" = numbered."version"
  FROM (SELECT "id", row_number() OVER (PARTITION BY "org_id", "name" ORDER BY "created_at", "id") AS "version"
    FROM "persisted_operations" WHERE "name" IS NOT NULL) numbered
  WHERE numbered."id" = p."id";
CREATE UNIQUE INDEX "persisted_operations_org_id_name_version_key" ON "persisted_operations"("org_id", "name", "version");

-- The platform analyses them anew when the schema has changed.
GRANT SELECT, UPDATE ("required_scopes", "cost", "step_up", "records") ON persisted_operations TO mcp_system;
CREATE POLICY system_read ON persisted_operations FOR SELECT TO mcp_system USING (true);
CREATE POLICY system_analyse ON persisted_operations FOR UPDATE TO mcp_system USING (true) WITH CHECK (true);

-- The operations that a key is bound to; NULL for a credential that is bound to none. A bound key sees and runs no other.
ALTER TABLE "api_keys" ADD COLUMN "allowed_operation_ids" UUID[] NOT NULL DEFAULT '{}';
GRANT SELECT ("allowed_operation_ids") ON api_keys TO mcp_app;
CREATE FUNCTION app.allowed_operations() RETURNS uuid[] LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN app.claims() ? 'operations'
    THEN ARRAY(SELECT jsonb_array_elements_text(app.claims() -> 'operations')::uuid) END
$$;
REVOKE EXECUTE ON FUNCTION app.allowed_operations() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.allowed_operations() TO mcp_app, mcp_system;
CREATE POLICY within_the_keys_limits ON persisted_operations AS RESTRICTIVE TO mcp_app
  USING ((SELECT app.allowed_operations()) IS NULL OR id = ANY ((SELECT app.allowed_operations())::uuid[]));

-- What each role can hold, as src/kernel/permissions.ts has it; test/rls/writes.test.ts holds the two to each other. No key
-- is made with more than its maker's role.
CREATE FUNCTION app.scopes_of(role text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE role
    WHEN 'VIEWER' THEN ARRAY['mcp:read', 'user:read', 'user:write', 'org:read']
    WHEN 'DEVELOPER' THEN ARRAY['mcp:read', 'user:read', 'user:write', 'org:read', 'mcp:write', 'user:token']
    WHEN 'ORG_ADMIN' THEN ARRAY['mcp:read', 'user:read', 'user:write', 'org:read', 'mcp:write', 'user:token', 'mcp:admin',
      'org:write', 'org:admin']
    ELSE ARRAY[]::text[] END
$$;
REVOKE EXECUTE ON FUNCTION app.scopes_of(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.scopes_of(text) TO mcp_app, mcp_system;
CREATE POLICY within_the_makers_role ON api_keys AS RESTRICTIVE FOR INSERT TO mcp_app
  WITH CHECK (scopes <@ (SELECT app.scopes_of(app.claims() ->> 'org_role')));

-- Whoever may not store a token may not drop one either.
CREATE POLICY forgetting_needs_its_scope ON user_tokens AS RESTRICTIVE FOR DELETE TO mcp_app
  USING ((SELECT app.has_scope('user:token')));

-- What a member leaves behind goes to whoever takes over: operations that they registered, and invitations that are open.
CREATE FUNCTION app.hand_over(member uuid, successor uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.persisted_operations SET user_id = successor
    WHERE user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND app.has_fresh_mfa();
  UPDATE public.invitations SET invited_by = successor
    WHERE invited_by = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND app.has_fresh_mfa()
      AND accepted_at IS NULL AND revoked_at IS NULL;
$$;
REVOKE EXECUTE ON FUNCTION app.hand_over(uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.hand_over(uuid, uuid) TO mcp_app;
