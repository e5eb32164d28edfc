import fs from "node:fs"; import os from "node:os"; import path from "node:path";
import { failAndResume, filesIn, shortRun, trainHere } from "./strain.ts";
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "strain-"));
fs.writeFileSync(path.join(folder, "config.json"), JSON.stringify(shortRun));
const log=(s:string)=>fs.writeSync(1,s+"\n");
const t0=Date.now();
await trainHere(["--config", path.join(folder,"config.json"), "--out", path.join(folder,"warm","run")]);
const whole = await trainHere(["--config", path.join(folder,"config.json"), "--out", path.join(folder,"whole","run")]);
if (whole.error) log("WHOLE "+whole.error);
const expected = filesIn(path.join(folder,"whole","run"));
const repeated = filesIn(path.join(folder,"warm","run"));
log(`calls ${whole.calls.length} ${Date.now()-t0} ms same ${JSON.stringify(expected)===JSON.stringify(repeated)}`);
const kinds=(process.argv[2]??"kill,torn,ENOSPC,EIO").split(",");
const [from,to]=(process.argv[3]??`1-${whole.calls.length}`).split("-").map(Number);
for (const kind of kinds as any[]) {
  let ok=0, bad=0, silent=0; const sentences=new Set<string>();
  for (let at=from; at<=to; at++) {
    const r = await failAndResume(folder,{kind,at});
    const names=new Set([...Object.keys(expected),...Object.keys(r.files)]);
    const diff=[...names].filter(n=>expected[n]!==r.files[n]);
    const sys = kind==="ENOSPC"||kind==="EIO";
    let problem = diff.length?`differs: ${diff}`: r.resumed?`resume: ${r.resumed}`:"";
    if(!r.failed) silent++;
    else if (sys) { sentences.add(r.failed.replace(/tslm-[0-9a-f]+/g,"X").replace(/(kill|torn|ENOSPC|EIO)-\d+/g,"N"));
      if(!/disk is full|disk or the network failed/.test(r.failed)) problem+=` sentence: ${r.failed}`;
      else if (r.kept && !/kept up to step \d/.test(r.failed)) problem+=` not kept: ${r.failed}`; }
    if(problem){bad++; log(`${kind} ${at} (${r.call}): ${problem} [failed: ${r.failed}]`);} else ok++;
  }
  log(`${kind}: ${ok} equal, ${bad} not, ${silent} without a failure; ${((Date.now()-t0)/1000).toFixed(0)} s`);
  for (const s of [...sentences].slice(0,40)) log("   "+s);
}
fs.rmSync(folder,{recursive:true,force:true});
process.exit(0);
