-- Reading other people's records takes a session in which a second factor was given, however long ago; changing a row of
-- theirs takes a fresh one.

-- Whether a second factor was given in the session of this transaction's identity, as the session's row confirmed it.
CREATE FUNCTION app.has_mfa() RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(app.claims() ?| ARRAY['mfa', 'mfa_at'], false)
$$;
REVOKE EXECUTE ON FUNCTION app.has_mfa() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.has_mfa() TO mcp_app, mcp_system;

-- As before; and the claim that a factor was given at all is confirmed by the session's row like the one that it is fresh.
-- No key carries either.
CREATE OR REPLACE FUNCTION app.identify(kind text, credential uuid, claims text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  c jsonb := claims::jsonb;
  uid uuid := c ->> 'sub';
  org uuid := c ->> 'org';
  claimed_mfa timestamptz := to_timestamp((c ->> 'mfa_at')::double precision);
  confirmed_mfa timestamptz;
  must_enrol boolean;
BEGIN
  IF kind = 'user' THEN
    SELECT s.mfa_at INTO confirmed_mfa FROM public.sessions s
      WHERE s.id = credential AND s.user_id = uid AND s.org_id = org AND s.revoked_at IS NULL AND s.expires_at > now()
        AND (claimed_mfa IS NULL OR s.mfa_at >= claimed_mfa) AND (NOT c ? 'mfa' OR s.mfa_at IS NOT NULL);
  ELSIF kind = 'apiKey' THEN
    PERFORM FROM public.api_keys k WHERE k.id = credential AND k.user_id = uid AND k.org_id = org
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now());
  ELSE
    RAISE EXCEPTION 'unknown kind of credential' USING ERRCODE = 'MC401';
  END IF;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the credential does not stand' USING ERRCODE = 'MC401';
  END IF;
  SELECT o.require_mfa AND NOT EXISTS (
      SELECT FROM public.second_factors f WHERE f.user_id = uid AND f.confirmed_at IS NOT NULL
    ) INTO must_enrol
    FROM public.memberships m JOIN public.users u ON u.id = m.user_id JOIN public.organizations o ON o.id = m.org_id
    WHERE m.org_id = org AND m.user_id = uid AND m.deactivated_at IS NULL AND u.disabled_at IS NULL
      AND m.role::text = c ->> 'org_role';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the membership does not stand' USING ERRCODE = 'MC401';
  END IF;
  IF must_enrol AND NOT (c -> 'scope' <@ '["user:read", "user:write"]'::jsonb) THEN
    RAISE EXCEPTION 'the organisation requires a second factor' USING ERRCODE = 'MC403';
  END IF;
  IF confirmed_mfa IS NULL AND c ?| ARRAY['mfa', 'mfa_at'] THEN
    PERFORM set_config('request.jwt.claims', (c - 'mfa' - 'mfa_at')::text, true);
  ELSIF claimed_mfa IS NOT NULL AND confirmed_mfa <= now() - interval '11 minutes' THEN
    PERFORM set_config('request.jwt.claims', (c - 'mfa_at' || '{"mfa": true}')::text, true);
  ELSE
    PERFORM set_config('request.jwt.claims', claims, true);
  END IF;
END
$$;

-- Reads
ALTER POLICY read_own_or_administered ON api_keys USING (
  org_id = (SELECT app.org_id())
  AND (user_id = (SELECT auth.uid()) OR (SELECT app.has_scope('org:admin') AND app.has_mfa()))
);
ALTER POLICY read_own_or_monitored ON request_log USING (
  org_id = (SELECT app.org_id())
  AND (user_id = (SELECT auth.uid()) OR (SELECT app.has_scope('mcp:admin') AND app.has_mfa()))
);
ALTER POLICY read_own_or_analysed ON usage_daily USING (
  org_id = (SELECT app.org_id())
  AND (
    user_id = (SELECT auth.uid())
    OR (SELECT app.has_scope('org:read') AND app.is_at_least_developer() AND (NOT app.is_admin() OR app.has_mfa()))
  )
);
ALTER POLICY read_administered ON audit_events USING (
  org_id = (SELECT app.org_id()) AND (SELECT app.is_admin()) AND (SELECT app.has_scope('org:read'))
  AND (user_id = (SELECT auth.uid()) OR (SELECT app.has_mfa()))
);

-- Acts
ALTER POLICY revoke_own_or_administered ON api_keys USING (
  org_id = (SELECT app.org_id())
  AND (
    (user_id = (SELECT auth.uid()) AND (SELECT app.has_scope('user:token')))
    OR (SELECT app.has_scope('org:admin') AND app.has_fresh_mfa())
  )
);
CREATE POLICY add_needs_mfa ON invitations AS RESTRICTIVE FOR INSERT TO mcp_app WITH CHECK ((SELECT app.has_fresh_mfa()));
CREATE POLICY change_needs_mfa ON invitations AS RESTRICTIVE FOR UPDATE TO mcp_app USING ((SELECT app.has_fresh_mfa()));

CREATE OR REPLACE FUNCTION app.end_member_credentials(member uuid, leaves boolean, at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.sessions SET revoked_at = at
    WHERE user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND app.has_fresh_mfa() AND revoked_at IS NULL;
  UPDATE public.api_keys SET revoked_at = at
    WHERE leaves AND user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND app.has_fresh_mfa() AND revoked_at IS NULL;
  DELETE FROM public.user_tokens
    WHERE leaves AND user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND app.has_fresh_mfa();
  DELETE FROM public.oauth_connections
    WHERE leaves AND user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND app.has_fresh_mfa();
  DELETE FROM public.oauth_authorizations
    WHERE user_id = member AND org_id = app.org_id() AND app.has_scope('org:admin') AND app.has_fresh_mfa();
$$;
