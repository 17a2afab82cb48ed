// Makes Escrow.json and LocalDollar.json: the ABI, the bytecode and a hash of the sources that they come from, so that nothing but npm is needed to
// see that they belong together, and nothing at all to use them. Without --write it compares.
const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");

const [folder, out, write] = process.argv.slice(2);

// A contract, and the folder of all that it is made of.
function artifact(contract, sources) {
  const hash = createHash("sha256");
  for (const name of fs.readdirSync(path.join(folder, sources)).sort()) {
    hash.update(name + "\n").update(fs.readFileSync(path.join(folder, sources, name)));
  }
  const compiled = path.join(out, `${contract}.sol`, `${contract}.json`);
  const { abi, bytecode, deployedBytecode } = JSON.parse(fs.readFileSync(compiled, "utf8"));
  // Where values that are fixed at deployment stand in the deployed code: whoever compares code on a chain leaves them out.
  const immutables = Object.values(deployedBytecode.immutableReferences)
    .flat()
    .map(({ start, length }) => [start, length])
    .sort((a, b) => a[0] - b[0]);
  const text = JSON.stringify(
    {
      contract,
      compiler: "0.8.37",
      sources: "sha256:" + hash.digest("hex"),
      abi,
      bytecode: bytecode.object,
      deployedBytecode: deployedBytecode.object,
      immutables,
    },
    null,
    1,
  );
  const target = path.join(folder, `${contract}.json`);
  if (write === "--write") {
    fs.writeFileSync(target, text + "\n");
  } else if (!fs.existsSync(target) || fs.readFileSync(target, "utf8") !== text + "\n") {
    console.error(`${contract}.json is not what the sources compile to; run settlement/contracts/check --write and look at the difference`);
    process.exit(1);
  }
  console.log(`${contract}.json: ${(deployedBytecode.object.length - 2) / 2} bytes of code`);
}

artifact("Escrow", "src");
artifact("LocalDollar", "local");
