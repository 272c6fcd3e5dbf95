"use strict";
// Asks for news; the server answers 304 while there is none.
const seconds = 5;
let known = null;
async function look() {
  try {
    const headers = known ? { "If-None-Match": known } : {};
    const answer = await fetch(location.href, { headers, cache: "no-store" });
    const tag = answer.headers.get("ETag");
    if (answer.ok && known && tag !== known) {
      sessionStorage.setItem("scroll", String(scrollY));
      location.reload();
      return;
    }
    if (answer.ok) {
      known = tag;
    }
    document.title = document.title.replace(/^\(offline\) /, "");
  } catch {
    document.title = document.title.replace(/^(\(offline\) )?/, "(offline) ");
  }
  setTimeout(look, seconds * 1000);
}
const place = sessionStorage.getItem("scroll");
if (place) {
  sessionStorage.removeItem("scroll");
  scrollTo(0, Number(place));
}
look();
