// A worker thread that helps to draw the random numbers it is sent.
import { parentPort } from "node:worker_threads";
import { type Draw, drawPieces } from "./draw-normals.js";

parentPort!.on("message", (draw: Draw) => drawPieces(draw));
