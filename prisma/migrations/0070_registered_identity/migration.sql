-- Identity for a registered operation that an instance remembers: what it remembers of the operation is confirmed in the
-- round trip of the query itself, like the credential, so that one that was taken away is refused at the next request.
CREATE FUNCTION app.identify_for(kind text, credential uuid, claims text, operation uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM app.identify(kind, credential, claims);
  PERFORM FROM public.persisted_operations p
    WHERE p.id = operation AND p.org_id = (claims::jsonb ->> 'org')::uuid
      AND (NOT claims::jsonb ? 'operations' OR claims::jsonb -> 'operations' ? operation::text);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the operation is not registered' USING ERRCODE = 'MC404';
  END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION app.identify_for(text, uuid, text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.identify_for(text, uuid, text, uuid) TO mcp_app;
