#!/usr/bin/env bash
# Uploads the new messages of Asterisk's app_voicemail, and removes what voicemaild has from Asterisk's spool.
#
#   asterisk-voicemail.sh CONTEXT MAILBOX [NEW OLD URGENT]     as `externnotify` of voicemail.conf calls it
#   asterisk-voicemail.sh                                      every mailbox, for cron
#
# A message is msgNNNN.txt with the recording in every format of voicemail.conf beside it, in INBOX or Urgent of the mailbox. It
# stays until voicemaild has it, and goes with the next call or with cron. The exit code is 0 when nothing is left.
set -uo pipefail
shopt -s nullglob

uploader=$(dirname -- "${BASH_SOURCE[0]}")/voicemail-upload
spool=$("$uploader" --setting VOICEMAILD_ASTERISK_SPOOL) || exit 78
domain=$("$uploader" --setting VOICEMAILD_DOMAIN) || exit 78
settle_seconds=$("$uploader" --setting VOICEMAILD_SETTLE_SECONDS) || exit 78
[[ $settle_seconds =~ ^[0-9]+$ ]] || exit 78

say () {
  printf 'asterisk-voicemail: %s\n' "$1" >&2
  logger -t asterisk-voicemail -- "$1" 2> /dev/null
}

result=0
upload_message () { # msgNNNN without an ending, the account
  local recording='' candidate others=() caller code age_seconds
  for candidate in "$1".*; do
    [[ $candidate == *.txt ]] || others+=("$candidate")
  done
  # Asterisk writes the text last, and it is removed last here: without a recording it is what an earlier run left.
  [ "${#others[@]}" -gt 0 ] || { rm -f -- "$1.txt"; return; }
  for candidate in "$1".wav "$1".WAV "$1".opus "$1".ogg; do [ -f "$candidate" ] && recording=$candidate && break; done
  if [ -z "$recording" ]; then
    say "$1 has no .wav, .WAV, .opus or .ogg: add wav to format= in voicemail.conf"
    result=65
    return
  fi
  # Once it is in the folder Asterisk still copies it to other mailboxes, mails it, or moves it to Urgent; that takes no seconds.
  age_seconds=$(($(date +%s) - $(stat -c %Z "$1.txt" || echo 0)))
  if [ "$age_seconds" -lt "$settle_seconds" ]; then
    # A clock that was set back would make a long wait of it.
    sleep "$((settle_seconds - (age_seconds > 0 ? age_seconds : 0)))"
    [ -f "$recording" ] || return
  fi
  # `"Alice" <1001>`, `1001`, `"Alice"`, or `Unknown`: a name alone is no address.
  caller=$(sed -n '/^callerid=/{s///p;q}' "$1.txt")
  [[ $caller =~ \<[^\<\>]+\>[[:space:]]*$ || $caller =~ ^[0-9+*#]+$ ]] || caller=
  "$uploader" --to "$2" --from "$caller" --delete -- "$recording"
  code=$?
  case $code in
    0)
      for candidate in "${others[@]}"; do rm -f -- "$candidate"; done
      rm -f -- "$1.txt" ;;
    69 | 77 | 78) exit "$code" ;;
    *) result=$code ;;
  esac
}

upload_mailbox () { # its folder
  local context mailbox host folder text note message
  mailbox=$(basename -- "$1")
  context=$(basename -- "$(dirname -- "$1")")
  host=$domain
  # Who has several domains names the contexts of voicemail.conf after them.
  [[ $context != *.* ]] || host=$context
  [ -n "$host" ] || { say "context $context is no domain, and VOICEMAILD_DOMAIN is not set"; exit 78; }
  for folder in "$1/INBOX" "$1/Urgent"; do
    [ -d "$folder" ] || continue
    # One at a time. The next one waits: what it was called for may have come after the first one looked.
    exec 8< "$folder"
    flock --timeout 900 8 || { say "$folder is locked by another run"; result=75; continue; }
    for text in "$folder"/msg[0-9][0-9][0-9][0-9].txt; do upload_message "${text%.txt}" "sip:$mailbox@$host"; done
    # What the uploader noted of messages that somebody else removed.
    for note in "$folder"/.msg[0-9][0-9][0-9][0-9].*.slot; do
      message=${note##*/.}
      [ -e "$folder/${message%.slot}" ] || rm -f -- "$note"
    done
    exec 8<&-
  done
}

if [ "$#" -ge 2 ]; then
  case $1/$2 in */*/* | /* | */ | .* | */.*) say "there is no mailbox $2 in $1"; exit 64 ;; esac
  upload_mailbox "$spool/$1/$2"
else
  for mailbox in "$spool"/*/*/; do upload_mailbox "${mailbox%/}"; done
fi
exit "$result"
