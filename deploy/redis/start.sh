#!/bin/sh
# Starts Redis (the command that is given) with its users, or says why not. Their passwords come from .env; Redis sees hashes.
set -eu
umask 077

refuse() {
    echo "$1: $2" >&2
    exit 78
}

for name in REDIS_PASSWORD REDIS_OPERATOR_PASSWORD; do
    eval "password=\${$name:-}"
    case $password in
        '') refuse "$name" '未设置，请写入 .env / is not set: put it into .env (openssl rand -hex 16)' ;;
        *'<'* | *change*me*) refuse "$name" '仍是示例，请在 .env 中更换 / is still the example: change it in .env (openssl rand -hex 16)' ;;
        # It is part of a URL, and there everything else would have to be written as %XX.
        *[!A-Za-z0-9._~-]*) refuse "$name" '只能用字母、数字和 . _ ~ - / may have letters, digits and . _ ~ - only' ;;
    esac
    [ "${#password}" -ge 16 ] || refuse "$name" '至少 16 个字符，否则会被猜到 / must have 16 characters or more, else it is guessed'
done
[ "$REDIS_PASSWORD" != "$REDIS_OPERATOR_PASSWORD" ] \
    || refuse REDIS_OPERATOR_PASSWORD '不能与 REDIS_PASSWORD 相同 / must not be the same as REDIS_PASSWORD'

sha256() {
    printf %s "$1" | sha256sum | cut -d ' ' -f 1
}

# docs/redis.md explains these rights, and a test holds them equal to it. Nobody else gets in, `default` neither.
users=$(mktemp)
cat >"$users" <<END
user default off resetpass resetkeys resetchannels -@all
user gateway on #$(sha256 "$REDIS_PASSWORD") ~mcpgw:* &mcpgw:* -@all +@read +@write +@pubsub +@scripting +@connection +time -@dangerous
user operator on #$(sha256 "$REDIS_OPERATOR_PASSWORD") ~mcpgw:* resetchannels -@all +@read +@connection -@dangerous +pubsub +time +client|list
END

unset REDIS_PASSWORD REDIS_OPERATOR_PASSWORD REDISCLI_AUTH password
exec "$@" --aclfile "$users"
