"use strict";
(function () {
  const table = document.getElementById("runs");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headings = Array.from(table.tHead.rows[0].cells);

  // What a row is sorted by in a column: null where it is missing.
  function keyOf(row, column, numeric) {
    const cell = row.cells[column];
    if (numeric) {
      return cell.dataset.v ? Number(cell.dataset.v) : null;
    }
    return cell.textContent.trim().toLowerCase() || null;
  }

  function sort(heading) {
    const column = heading.cellIndex;
    const numeric = heading.dataset.kind === "number";
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach(function (other) {
      if (other !== heading) {
        other.removeAttribute("aria-sort");
      }
    });
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = Array.from(body.rows).map(function (row) {
      return [keyOf(row, column, numeric), row];
    });
    keyed.sort(function (a, b) {
      if (a[0] === null || b[0] === null) {
        return (a[0] === null) - (b[0] === null);
      }
      const order = numeric ? a[0] - b[0] : a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0;
      return down ? -order : order;
    });
    keyed.forEach(function (pair) {
      body.appendChild(pair[1]);
    });
  }

  headings.forEach(function (heading) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.textContent = "";
    heading.appendChild(button);
    button.addEventListener("click", function () {
      sort(heading);
    });
  });

  const form = document.getElementById("filters");
  const fields = ["target", "sampler", "state"].map(function (name) {
    return [name, document.getElementById("f-" + name)];
  });
  const text = document.getElementById("f-text");
  const count = document.getElementById("count");

  function filter() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach(function (row) {
      const content = row.textContent.toLowerCase();
      const fits =
        fields.every(function (field) {
          return !field[1].value || row.dataset[field[0]] === field[1].value;
        }) &&
        words.every(function (word) {
          return content.includes(word);
        });
      row.hidden = !fits;
      shown += fits;
    });
    const runs = rows.length === 1 ? " run." : " runs.";
    count.textContent = shown === rows.length ? shown + runs : shown + " of " + rows.length + runs;
  }

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", function (event) {
    event.preventDefault();
  });
  form.addEventListener("reset", function () {
    setTimeout(filter, 0);
  });
  filter();

  // A link to a run opens it.
  function open() {
    let place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!place) {
      return;
    }
    for (let outer = place; outer; outer = outer.parentElement) {
      if (outer.tagName === "DETAILS") {
        outer.open = true;
      }
    }
    place.scrollIntoView();
  }
  addEventListener("hashchange", open);
  document.addEventListener("click", function (event) {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) {
      open();
    }
  });
  open();

  // Paper shows what is folded.
  let folded = [];
  addEventListener("beforeprint", function () {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    folded.forEach(function (details) {
      details.open = true;
    });
  });
  addEventListener("afterprint", function () {
    folded.forEach(function (details) {
      details.open = false;
    });
  });

  // Copies where that is allowed, and selects the text in any case.
  document.querySelectorAll(".copyable").forEach(function (box) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", function () {
      const source = box.querySelector("pre");
      const selection = getSelection();
      selection.removeAllRanges();
      selection.selectAllChildren(source);
      function say(word) {
        button.textContent = word;
        setTimeout(function () {
          button.textContent = "Copy";
        }, 2000);
      }
      if (navigator.clipboard) {
        navigator.clipboard.writeText(source.textContent).then(
          function () {
            say("Copied");
          },
          function () {
            say("Selected");
          }
        );
      } else {
        say("Selected");
      }
    });
    box.appendChild(button);
    box.classList.add("with-button");
  });
})();
