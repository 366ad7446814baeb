# Markdown pages to JSON lines of plain prose: {"title": ..., "text": ...}, one document a section.
#
#   awk -v keep_one_in=1 -f prose.awk PAGE.md... > prose.jsonl
#
# A heading begins a document, and so does a paragraph after `document_limit` bytes, so that there are many
# documents of about one size and a held-out share of them stands for all. Within "text", one paragraph a line.
# Left out: navigation, citations ("[Op. Cit., p. 7]"), marks of emphasis, and every paragraph that has been
# printed before, so that what is held out does not stand in the training text too.
# Written for any POSIX awk (Debian's own is mawk, which works on bytes and has no {n} in expressions).

BEGIN {
  document_limit = 12000  # bytes
  smallest_document = 400  # bytes; a heading with a line or two is left out
  if (keep_one_in < 1) keep_one_in = 1
}

FNR == 1 { end_document() }

/^#+ / {
  end_document()
  in_heading = 1
  paragraph = $0
  sub(/^#+ /, "", paragraph)
  next
}

/^[> \t]*$/ { end_paragraph(); next }

{
  line = $0
  sub(/^[> \t]+/, "", line)
  append_line(line)
}

END { end_document() }

# Lines were wrapped, also after the hyphen of a compound ("co-" / "operative"), but a dash ends in a space.
function append_line(text) {
  if (paragraph == "" || paragraph ~ /[A-Za-z]-$/)
    paragraph = paragraph text
  else
    paragraph = paragraph " " text
}

function end_paragraph(    text, key) {
  text = plain(paragraph)
  paragraph = ""
  if (in_heading) {
    in_heading = 0
    sub(/^[A-Z]?[.0-9]+ /, "", text)  # "A.1.1 ", "2.3. "
    title = text
    return
  }
  key = tolower(text)
  gsub(/[^a-z0-9]/, "", key)  # editions of a page differ in punctuation
  if (key == "" || key in printed) return
  printed[key] = 1
  if (length(body) > document_limit) flush_document()
  body = body (body == "" ? "" : "\n") text
}

function end_document() {
  end_paragraph()
  flush_document()
  title = ""
}

function flush_document() {
  if (length(body) >= smallest_document && documents++ % keep_one_in == 0)
    printf "{\"title\": \"%s\", \"text\": \"%s\"}\n", json(title), json((title == "" ? "" : title "\n") body)
  body = ""
}

function plain(text,    rest, link) {
  if (text ~ /"Go to (previous|next|parent) page"/) return ""
  gsub(/<http[^>]*>/, "", text)
  gsub(/\\/, "", text)    # "1\." and "\--" were escaped for Markdown
  gsub(/[*_]/, "", text)  # emphasis, and the bullets of lists
  while (match(text, /\]\([^()]*\)/)) {  # [what is read](where.md#it-leads)
    rest = substr(text, RSTART + RLENGTH)
    link = substr(text, 1, RSTART - 1)
    if (!sub(/\[[^][]*$/, "\001&", link)) { text = link rest; continue }
    sub(/\001\[/, "", link)
    text = link rest
  }
  gsub(/\[[^][]*(pp?\. ?[0-9ivx]|Op\. ?Cit|Ibid)[^][]*\]/, "", text)
  gsub(/\[ [A-Z"][^][]*\]/, "", text)  # a title: "[ What is Socialism? ]"
  return tidy(text)
}

function tidy(text) {
  gsub(/‘|’|‚/, "'", text)
  gsub(/“|”/, "\"", text)
  gsub(/–/, "--", text)
  gsub(/­/, "", text)  # a soft hyphen
  gsub(/[ \t]*\. \. \.( \.)?|…/, "...", text)
  gsub(/ |[ \t]+/, " ", text)  # a no-break space, and what the removals above left
  gsub(/ +[,;:)!?]/, "\001&", text)
  gsub(/\001 +/, "", text)
  while (match(text, / \.([ "]|$)/)) text = substr(text, 1, RSTART - 1) substr(text, RSTART + 1)
  gsub(/\( +/, "(", text)
  sub(/^ +/, "", text)
  sub(/ +$/, "", text)
  return text
}

function json(text) {
  gsub(/\\/, "\\\\", text)
  gsub(/"/, "\\\"", text)
  gsub(/\t/, " ", text)
  gsub(/\n/, "\\n", text)
  return text
}
