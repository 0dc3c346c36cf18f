#!/bin/sh
# Starts Redis (the command that is given) with its users, or says why not. Their passwords come from .env; Redis sees hashes.
set -eu
umask 077

refuse() {
    echo "$1: $2" >&2
    exit 78
}

# Fails where the variable is empty; refuses what is no password.
is_given() {
    eval "password=\${$1:-}"
    case $password in
        '') return 1 ;;
        *'<'* | *change*me*) refuse "$1" '仍是示例，请在 .env 中更换 / is still the example: change it in .env (openssl rand -hex 16)' ;;
        # It is part of a URL, and there everything else would have to be written as %XX.
        *[!A-Za-z0-9._~-]*) refuse "$1" '只能用字母、数字和 . _ ~ - / may have letters, digits and . _ ~ - only' ;;
    esac
    [ "${#password}" -ge 16 ] || refuse "$1" '至少 16 个字符，否则会被猜到 / must have 16 characters or more, else it is guessed'
    for other in $known; do
        eval "[ \"\$password\" != \"\${$other}\" ]" || refuse "$1" "不能与 $other 相同 / must not be the same as $other"
    done
    known="$known $1"
}

known=
for name in REDIS_PASSWORD REDIS_OPERATOR_PASSWORD; do
    is_given $name || refuse $name '未设置，请写入 .env / is not set: put it into .env (openssl rand -hex 16)'
done

user() {
    printf 'user %s on #%s %s\n' "$1" "$(eval "printf %s \"\$$2\"" | sha256sum | cut -d ' ' -f 1)" "$3"
}

# docs/redis.md explains these rights, and a test holds them equal to it. Nobody else gets in, `default` neither.
users=$(mktemp)
{
    echo 'user default off resetpass resetkeys resetchannels -@all'
    user gateway REDIS_PASSWORD '~mcpgw:* &mcpgw:* -@all +@read +@write +@pubsub +@scripting +@connection +time -@dangerous +info +role'
    user operator REDIS_OPERATOR_PASSWORD '~mcpgw:* resetchannels -@all +@read +@connection -@dangerous +pubsub +time +client|list'
    # Who has no password does not exist.
    if is_given REDIS_DOCTOR_PASSWORD; then
        user doctor REDIS_DOCTOR_PASSWORD '~mcpgw:* resetchannels -@all +@read +@connection -@dangerous +pubsub +time +client|list +info +config|get'
    fi
    if is_given REDIS_FOREMAN_PASSWORD; then
        user foreman REDIS_FOREMAN_PASSWORD '~mcpgw:* resetchannels &mcpgw:ctl &mcpgw:in:* -@all +@read +@connection -@dangerous +pubsub +time +publish'
    fi
} >"$users"

unset REDIS_PASSWORD REDIS_OPERATOR_PASSWORD REDIS_DOCTOR_PASSWORD REDIS_FOREMAN_PASSWORD REDISCLI_AUTH password
exec "$@" --aclfile "$users"
