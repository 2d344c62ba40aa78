-- CreateEnum
CREATE TYPE "SecondFactorKind" AS ENUM ('TOTP', 'EMAIL', 'PASSKEY');

CREATE TABLE "second_factors" (
  "id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "kind" "SecondFactorKind" NOT NULL,
  "label" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "confirmed_at" TIMESTAMPTZ(3),
  "last_used_at" TIMESTAMPTZ(3),
  "sealed_secret" TEXT,
  "last_step" BIGINT NOT NULL DEFAULT 0,
  "credential_id" TEXT,
  "public_key" TEXT,
  "counter" BIGINT NOT NULL DEFAULT 0,
  "transports" TEXT[],
  "backed_up" BOOLEAN NOT NULL DEFAULT false,
  CONSTRAINT "second_factors_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "second_factors_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "second_factors_credential_id_key" ON "second_factors"("credential_id");
CREATE INDEX "second_factors_user_id_idx" ON "second_factors"("user_id");
-- An account has one address, so codes to it are one factor.
CREATE UNIQUE INDEX "second_factors_one_email_a_user" ON "second_factors"("user_id") WHERE "kind" = 'EMAIL';

CREATE TABLE "recovery_codes" (
  "id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "code_hash" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "used_at" TIMESTAMPTZ(3),
  CONSTRAINT "recovery_codes_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "recovery_codes_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "recovery_codes_user_id_code_hash_key" ON "recovery_codes"("user_id", "code_hash");

CREATE TABLE "sign_in_challenges" (
  "id" UUID NOT NULL,
  "token_hash" TEXT NOT NULL,
  "user_id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "expires_at" TIMESTAMPTZ(3) NOT NULL,
  "attempts" INTEGER NOT NULL DEFAULT 0,
  "used_at" TIMESTAMPTZ(3),
  CONSTRAINT "sign_in_challenges_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "sign_in_challenges_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "sign_in_challenges_token_hash_key" ON "sign_in_challenges"("token_hash");
CREATE INDEX "sign_in_challenges_user_id_idx" ON "sign_in_challenges"("user_id");
CREATE INDEX "sign_in_challenges_expires_at_idx" ON "sign_in_challenges"("expires_at");

-- What a browser signs in a WebAuthn ceremony; `bound_to` names the session or the sign-in that asked for it.
CREATE TABLE "webauthn_challenges" (
  "id" UUID NOT NULL,
  "challenge_hash" TEXT NOT NULL,
  "user_id" UUID,
  "bound_to" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "expires_at" TIMESTAMPTZ(3) NOT NULL,
  "used_at" TIMESTAMPTZ(3),
  CONSTRAINT "webauthn_challenges_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "webauthn_challenges_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "webauthn_challenges_challenge_hash_key" ON "webauthn_challenges"("challenge_hash");
CREATE INDEX "webauthn_challenges_user_id_idx" ON "webauthn_challenges"("user_id");
CREATE INDEX "webauthn_challenges_expires_at_idx" ON "webauthn_challenges"("expires_at");

CREATE TABLE "email_codes" (
  "id" UUID NOT NULL,
  "user_id" UUID NOT NULL,
  "bound_to" TEXT NOT NULL,
  "code_hash" TEXT NOT NULL,
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "expires_at" TIMESTAMPTZ(3) NOT NULL,
  "attempts" INTEGER NOT NULL DEFAULT 0,
  "used_at" TIMESTAMPTZ(3),
  CONSTRAINT "email_codes_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "email_codes_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX "email_codes_user_id_created_at_idx" ON "email_codes"("user_id", "created_at");
CREATE INDEX "email_codes_expires_at_idx" ON "email_codes"("expires_at");

-- Tries at a second factor, by what was tried against: `user:<id>` at sign-in, `session:<id>` at step-up. Apart, so that
-- a stranger with a stolen password cannot keep its owner from stepping up in a session that already stands.
CREATE TABLE "second_factor_tries" (
  "subject" TEXT NOT NULL,
  "tries" INTEGER NOT NULL,
  "window_ends_at" TIMESTAMPTZ(3) NOT NULL,
  CONSTRAINT "second_factor_tries_pkey" PRIMARY KEY ("subject")
);
CREATE INDEX "second_factor_tries_window_ends_at_idx" ON "second_factor_tries"("window_ends_at");

ALTER TABLE "organizations" ADD COLUMN "require_mfa" BOOLEAN NOT NULL DEFAULT false;

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['second_factors', 'recovery_codes', 'sign_in_challenges', 'webauthn_challenges', 'email_codes',
    'second_factor_tries'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY owner_all ON %I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO mcp_system', name);
    EXECUTE format('CREATE POLICY system_all ON %I TO mcp_system USING (true) WITH CHECK (true)', name);
  END LOOP;
END
$$;

-- second_factors: members see their own, without secrets and keys; they change only through the platform's own verbs
GRANT SELECT (id, user_id, kind, label, created_at, confirmed_at, last_used_at, backed_up) ON second_factors TO mcp_app;
CREATE POLICY read_own ON second_factors FOR SELECT TO mcp_app USING (user_id = (SELECT auth.uid()));

GRANT UPDATE (require_mfa) ON organizations TO mcp_app;

-- Whether the identity of this transaction carries a second factor that the session's row confirmed a moment ago.
CREATE FUNCTION app.has_fresh_mfa() RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(app.claims() ? 'mfa_at', false)
$$;

-- As before, and two things more. A token that speaks of a second factor is believed only as far as the session's row
-- confirms it: a factor that the row does not know ends the credential, one that has grown old is left out of the claims
-- (a minute of grace for clocks that differ). And where the organisation requires a second factor, a member who has none
-- passes with the scopes that enrolling needs, and with no other.
CREATE OR REPLACE FUNCTION app.identify(kind text, credential uuid, claims text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
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
        AND (claimed_mfa IS NULL OR s.mfa_at >= claimed_mfa);
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
  IF claimed_mfa IS NOT NULL AND (confirmed_mfa IS NULL OR confirmed_mfa <= now() - interval '11 minutes') THEN
    PERFORM set_config('request.jwt.claims', (c - 'mfa_at')::text, true);
  ELSE
    PERFORM set_config('request.jwt.claims', claims, true);
  END IF;
END
$$;

-- The third lock on administrative rows: without a fresh second factor they do not change, whatever the rules above forgot.
CREATE POLICY change_needs_mfa ON organizations AS RESTRICTIVE FOR UPDATE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY add_needs_mfa ON memberships AS RESTRICTIVE FOR INSERT TO mcp_app WITH CHECK ((SELECT app.has_fresh_mfa()));
CREATE POLICY change_needs_mfa ON memberships AS RESTRICTIVE FOR UPDATE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY remove_needs_mfa ON memberships AS RESTRICTIVE FOR DELETE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY remove_needs_mfa ON services AS RESTRICTIVE FOR DELETE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY add_needs_mfa ON tool_policies AS RESTRICTIVE FOR INSERT TO mcp_app WITH CHECK ((SELECT app.has_fresh_mfa()));
CREATE POLICY change_needs_mfa ON tool_policies AS RESTRICTIVE FOR UPDATE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY remove_needs_mfa ON tool_policies AS RESTRICTIVE FOR DELETE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY add_needs_mfa ON shared_tokens AS RESTRICTIVE FOR INSERT TO mcp_app WITH CHECK ((SELECT app.has_fresh_mfa()));
CREATE POLICY change_needs_mfa ON shared_tokens AS RESTRICTIVE FOR UPDATE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY remove_needs_mfa ON shared_tokens AS RESTRICTIVE FOR DELETE TO mcp_app USING ((SELECT app.has_fresh_mfa()));

REVOKE EXECUTE ON FUNCTION app.has_fresh_mfa() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.has_fresh_mfa() TO mcp_app, mcp_system;
