-- name: note(actor, face, action, target, reason, effects, outcome, why)!
-- Writes a row of the log of actions, in the caller's transaction. The effects come as text: not every connection reads JSON.
INSERT INTO operator_actions (actor, face, action, target, reason, effects, outcome, why)
VALUES (:actor, :face, :action, :target, :reason, (:effects::text)::jsonb, :outcome, :why);
