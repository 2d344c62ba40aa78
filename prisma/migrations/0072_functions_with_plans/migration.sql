-- A function in SQL that cannot be inlined is planned again by each statement that calls it, one in PL/pgSQL once a
-- connection. Every call of a tool and every look at services asks these: they say what they said, sooner.

CREATE OR REPLACE FUNCTION app.service_credential(service uuid) RETURNS TABLE (owner text, ciphertext text, updated_at timestamptz)
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT t.user_id::text, t.ciphertext, t.updated_at
      FROM public.services s JOIN public.user_tokens t ON t.service_id = s.id
      WHERE s.id = service AND s.org_id = app.org_id() AND s.credential_mode = 'PERSONAL' AND t.user_id = auth.uid() AND t.org_id = s.org_id
    UNION ALL
    SELECT 'shared', t.ciphertext, t.updated_at
      FROM public.services s JOIN public.shared_tokens t ON t.service_id = s.id
      WHERE s.id = service AND s.org_id = app.org_id() AND s.credential_mode = 'SHARED' AND t.org_id = s.org_id;
END
$$;

CREATE OR REPLACE FUNCTION app.service_connection(service uuid)
  RETURNS TABLE (id uuid, owner text, sealed_access text, refreshable boolean, version integer, expires_at timestamptz, broken boolean)
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT c.id, coalesce(c.user_id::text, 'shared'), c.sealed_access, c.sealed_refresh IS NOT NULL, c.version, c.expires_at, c.broken_at IS NOT NULL
      FROM public.services s JOIN public.oauth_connections c ON c.service_id = s.id AND c.org_id = s.org_id
      WHERE s.id = service AND s.org_id = app.org_id() AND s.credential_kind = 'OAUTH'
        AND ((s.credential_mode = 'PERSONAL' AND c.user_id = auth.uid()) OR (s.credential_mode = 'SHARED' AND c.user_id IS NULL));
END
$$;

CREATE OR REPLACE FUNCTION app.allowed_services() RETURNS uuid[] LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF app.claims() ? 'services' THEN
    RETURN ARRAY(SELECT jsonb_array_elements_text(app.claims() -> 'services')::uuid);
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION app.allowed_operations() RETURNS uuid[] LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF app.claims() ? 'operations' THEN
    RETURN ARRAY(SELECT jsonb_array_elements_text(app.claims() -> 'operations')::uuid);
  END IF;
  RETURN NULL;
END
$$;
