-- Roles, identity and the functions that policies read. Nothing here belongs to a table.

-- Two group roles; logins are members of one of them. Neither owns a table, neither bypasses row level security.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mcp_app') THEN
    CREATE ROLE mcp_app NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mcp_system') THEN
    CREATE ROLE mcp_system NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL; -- another database of the same server made them at the same moment
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mcp_app, mcp_system;

-- auth.uid() is Supabase's; elsewhere the same function is made here.
CREATE SCHEMA IF NOT EXISTS auth;
DO $$
BEGIN
  IF to_regprocedure('auth.uid()') IS NULL THEN
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $f$
      SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
    $f$;
  END IF;
END
$$;
GRANT USAGE ON SCHEMA auth TO mcp_app, mcp_system;
GRANT EXECUTE ON FUNCTION auth.uid() TO mcp_app, mcp_system;

CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO mcp_app, mcp_system;

-- A setting that was once local to a transaction reads '' afterwards, not NULL.
CREATE FUNCTION app.claims() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb
$$;
CREATE FUNCTION app.org_id() RETURNS uuid LANGUAGE sql STABLE AS $$
  SELECT (app.claims() ->> 'org')::uuid
$$;
CREATE FUNCTION app.has_scope(wanted text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(app.claims() -> 'scope' ? wanted, false)
$$;
CREATE FUNCTION app.is_at_least_developer() RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(app.claims() ->> 'org_role' IN ('DEVELOPER', 'ORG_ADMIN'), false)
$$;
CREATE FUNCTION app.is_admin() RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(app.claims() ->> 'org_role' = 'ORG_ADMIN', false)
$$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA app TO mcp_app, mcp_system;

-- The ledger of migrations is nobody's business but the owner's.
DO $$
BEGIN
  IF to_regclass('public._prisma_migrations') IS NOT NULL THEN
    ALTER TABLE public._prisma_migrations ENABLE ROW LEVEL SECURITY;
    ALTER TABLE public._prisma_migrations FORCE ROW LEVEL SECURITY;
    CREATE POLICY owner_all ON public._prisma_migrations TO CURRENT_USER USING (true) WITH CHECK (true);
  END IF;
END
$$;
