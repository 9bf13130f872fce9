#!/bin/sh
# Check a bundle with this host's own openssl and tar, then hand over to its checker, which unpacks the tool.
# Nothing out of the bundle is run before the signature over its manifest and the digest of the checker are right.
set -eu

usage='usage: sh bootstrap.sh FILE --fingerprint HEX [--root DIR] [--check] [--accept-expired] [--accept-rollback]
       sh bootstrap.sh FILE --fingerprint HEX --copy DIR      copy the file or its parts, or finish a broken copy
       sh bootstrap.sh FILE --fingerprint HEX --request FILE  also write down which parts must be brought again
FILE: the bundle, or its first part (.001). Without --fingerprint: a key that an installation in --root DIR trusts.'

# say ENGLISH KOREAN: in the operator's language
say() {
    case "${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}" in ko*) printf '%s' "$2" ;; *) printf '%s' "$1" ;; esac
}

# fail CODE MESSAGE HINT
fail() {
    printf '%s: %s\n  %s: %s\n' "$(say error 오류)" "$2" "$(say hint 조치)" "$3" >&2
    exit "$1"
}

bad_usage() { fail 2 "$1" "$usage"; }

file='' fingerprint='' given='' root=/var/lib/tracking-bundle copy='' request='' options=''
while [ $# -gt 0 ]; do
    case $1 in
    --fingerprint | --root | --copy | --request)
        [ $# -ge 2 ] || bad_usage "$(say "$1 needs a value" "$1 값이 없습니다")"
        option=$1=$2
        shift 2
        set -- "$option" "$@"
        continue
        ;;
    --fingerprint=*) fingerprint=${1#*=} given=1 ;;
    --root=*) root=${1#*=} ;;
    --copy=?*) copy=${1#*=} ;;
    --request=?*) request=${1#*=} ;;
    --check | --accept-expired | --accept-rollback) options="$options $1" ;;
    -h | --help) printf '%s\n' "$usage" && exit 0 ;;
    -*) bad_usage "$(say "unknown option $1" "알 수 없는 옵션 $1")" ;;
    *)
        [ -z "$file" ] || bad_usage "$(say 'more than one file given' '파일이 둘 이상입니다')"
        file=$1
        ;;
    esac
    shift
done
[ -n "$file" ] || bad_usage "$(say 'no bundle file given' '번들 파일을 지정하지 않았습니다')"
case $file in *.00[2-9] | *.0[1-9][0-9] | *.[1-9][0-9][0-9])
    bad_usage "$(say "name the first part, ${file%.*}.001" "첫 파트의 이름을 지정하세요: ${file%.*}.001")"
    ;;
esac
[ -f "$file" ] && [ -r "$file" ] || bad_usage "$(say "cannot read the file $file" "$file 파일을 읽을 수 없습니다")"
[ -n "$root" ] || bad_usage "$(say '--root is empty' '--root 값이 비었습니다')"
case $file in /*) ;; *) file=$PWD/$file ;; esac # tar takes a name with a colon for another host's, unless it begins with /
fingerprint=$(printf '%s' "$fingerprint" | tr -d ': \t\r\n' | tr 'A-F' 'a-f')
case $fingerprint in *[!0-9a-f]*) fingerprint='' ;; esac
accepted=''
[ ${#fingerprint} -ne 64 ] || accepted=$fingerprint
if [ -z "$given" ] && [ -r "$root/releases/trusted.json" ]; then # what the operator named at an earlier bootstrap
    accepted=$(sed -n 's/^ *"\([0-9a-f]\{64\}\)",*$/\1/p' "$root/releases/trusted.json" | tr '\n' ' ')
fi
[ -n "$accepted" ] ||
    bad_usage "$(say '--fingerprint must be the 64 hex digits of the trust sheet' '--fingerprint에는 확인서의 16진수 64자리를 적으세요')"

for tool in openssl tar mktemp head sed grep; do
    command -v "$tool" >/dev/null 2>&1 ||
        fail 3 "$(say "$tool not found, needed to check the bundle" "번들 검사에 필요한 $tool 명령이 없습니다")" \
            "$(say "Install $tool, then run this again." "$tool 설치 후 다시 실행하세요.")"
done
work=$(mktemp -d)
trap 'wait; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# the program itself, so that a wrapper of that name is passed through once; looked for while the signature is checked
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        "$candidate" -I -S -c 'import sys
(3, 10) <= sys.version_info[:2] <= (3, 14) or sys.exit(1)
print(sys.executable or sys.argv[1])' "$candidate" 2>/dev/null && return
    done
}
find_python >"$work/python" &

# member NAME BYTES: never more than BYTES of it, never a link or a folder. GNU tar stops at the first one; another tar
# reads on, and would join a second one of that name to it: then the signature is wrong.
once=''
case $(tar --version 2>/dev/null) in *'GNU tar'*) once='--occurrence=1' ;; esac
member() {
    # shellcheck disable=SC2086 # empty or one word
    tar -xOf "$file" $once "$1" 2>/dev/null | head -c "$2" >"$work/$1"
}
sha256() { openssl dgst -sha256 -r "$@" | cut -d ' ' -f 1; } # of each file, one a line
again="$(say 'Do not use this file. Compare it with the trust sheet, then copy it again from its source.' '이 파일을 쓰지 마세요. 확인서와 비교한 뒤 원본에서 다시 복사하세요.')"
where=''
case $file in *.001) where="${file##*/}: " ;; esac # what is read here lies in the first part

member MANIFEST.json 16777216
member MANIFEST.sig 4096
member key.pem 4096
member unseal.py 1048576
openssl pkey -pubin -in "$work/key.pem" -outform DER -out "$work/key.der" 2>/dev/null ||
    fail 5 "$where$(say 'the bundle holds no public key' '번들에 공개 키가 없습니다')" "$again"
# shellcheck disable=SC2046 # three words
set -- $(sha256 "$work/key.der" "$work/unseal.py" "$work/MANIFEST.json") none none none
found=$1 checker=$2 manifest=$3
old=''
if grep -q '"path": "rotation.txt"' "$work/MANIFEST.json"; then # an older key says that this one follows it
    member rotation.txt 4096
    member rotation.sig 4096
    member rotation.pem 4096
    if openssl pkey -pubin -in "$work/rotation.pem" -outform DER -out "$work/old.der" 2>/dev/null &&
        openssl dgst -sha256 -verify "$work/old.der" -keyform DER -signature "$work/rotation.sig" "$work/rotation.txt" >/dev/null 2>&1; then
        old=$(sha256 "$work/old.der")
    fi
    [ "$(cat "$work/rotation.txt")" = "tracking-bundle: the signing key $old is followed by $found" ] ||
        fail 5 "$(say 'rotation.txt: the older key did not say that' 'rotation.txt: 이전 키가 서명한 내용이 아닙니다')" "$again"
fi
case " $accepted " in
*" $found "*) ;;
*" ${old:-none} "*) printf '%s\n' "$(say "the key $old, which you trust, is followed by $found" "신뢰하는 키 $old 다음의 새 키: $found")" >&2 ;;
*)
    fail 5 "$(say "the bundle was signed by another key, $found" "번들이 다른 키로 서명되었습니다: $found")" \
        "$(say 'Do not use this file, unless a trust sheet that came on another way names that key: give it with --fingerprint.' \
            '다른 경로로 받은 확인서에 그 키가 적혀 있을 때만 --fingerprint로 지정하고, 아니면 이 파일을 쓰지 마세요.')"
    ;;
esac
openssl dgst -sha256 -verify "$work/key.der" -keyform DER -signature "$work/MANIFEST.sig" "$work/MANIFEST.json" >/dev/null 2>&1 ||
    fail 5 "$where$(say 'MANIFEST.json: its signature is wrong' 'MANIFEST.json의 서명이 맞지 않습니다')" "$again"
sealed=$(sed -n 's/^"checker_sha256": "\([0-9a-f]\{64\}\)",*$/\1/p' "$work/MANIFEST.json")
[ "$checker" = "$sealed" ] ||
    fail 5 "$where$(say 'unseal.py: not the checker that was sealed' 'unseal.py가 봉인된 검사기와 다릅니다')" "$again"

wait
python=$(cat "$work/python")
[ -n "$python" ] ||
    fail 3 "$(say 'no Python 3.10 to 3.14 found' 'Python 3.10~3.14가 없습니다')" \
        "$(say 'Install python3, then run this again.' 'python3 설치 후 다시 실행하세요.')"
# shellcheck disable=SC2086 # the options are words of our own
"$python" -I -S -X utf8 "$work/unseal.py" "$file" --manifest "$manifest" \
    --fingerprint "$found" --old "$old" --copy "$copy" --request "$request" --root "$root" $options
