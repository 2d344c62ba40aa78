-- Unless it is named, a caller's temporary schema is searched first of all for types and tables, so a type of their own
-- would run as the owner inside a definer function (CVE-2007-2138). Named last, it is never reached.
DO $$
DECLARE
  definer regprocedure;
BEGIN
  FOR definer IN SELECT p.oid FROM pg_proc p WHERE p.prosecdef AND p.pronamespace = 'app'::regnamespace LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, public, pg_temp', definer);
  END LOOP;
END
$$;

-- Who joins is not a member yet, so the platform adds them when they accept. An administrator who could add a row here
-- could name any user's id, and read that user's profile as a colleague's.
DROP POLICY IF EXISTS add ON memberships;
DROP POLICY IF EXISTS add_needs_mfa ON memberships;
REVOKE INSERT ON memberships FROM mcp_app;
